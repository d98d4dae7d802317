"""VL_ and AL_ checkpoints in the authors' form become folders that load like any other."""

from dataclasses import replace

import pytest
import torch
from helpers import video_llama as reference

from malmm_cli.checkpoints.state import read_state
from malmm_cli.cli import run
from malmm_cli.models import registry
from malmm_cli.models.video_llama import random_init
from malmm_cli.models.video_llama.names import rename


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of another random model, with and without an audio branch."""
    made = {}
    for hears in (True, False):
        made[hears] = tmp_path_factory.mktemp("base") / "base"
        config = reference.configuration("llama-2")  # so that its checkpoints fit
        if not hears:
            config = replace(config, audio_qformer_config=None)
        random_init.write(made[hears], config, ["what", "red"])
    return made


def parameters(which):
    return reference.index()[f"{which}_checkpoint_keys"]["parameters"]


def checkpoint(path, which, **changes):
    """What the authors' runner saves of a branch: trained parameters, and all buffers."""
    stored, keys = reference.only("weights"), reference.index()[f"{which}_checkpoint_keys"]
    state = {name: stored[name] for name in parameters(which)}
    state |= {name: torch.zeros(2) for name in keys["buffers"]}
    state = {k: v for k, v in {**state, **changes}.items() if v is not None}
    torch.save({"model": state, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("which", ["vl", "al"])
@pytest.mark.parametrize("hears", [True, False])
def test_a_branch_over_a_base(which, hears, bases, tmp_path, capsys):
    given = checkpoint(tmp_path / f"{which.upper()}_tiny.pth", which)
    out, base = tmp_path / "out", bases[hears]
    assert run(["convert", str(given), str(out), "--base", str(base)]) == 0
    assert "58 tensors of" in capsys.readouterr().err
    trained = rename(
        {
            k: reference.only("weights")[k]
            for k in reference.index()[f"{which}_checkpoint_keys"]["parameters"]
        }
    )
    found, before = read_state(out), read_state(base)
    assert found.keys() == before.keys() | trained.keys()
    for name, value in found.items():
        assert torch.equal(value, trained.get(name, before.get(name))), name
    assert (registry.load(out).audio is not None) == (hears or which == "al")


def test_renaming_twice_is_renaming_once():
    once = reference.state()
    assert once.keys() == rename(once).keys()


@pytest.mark.parametrize(
    ("which", "changes", "says"),
    [
        ("vl", {"video_query_tokens": None}, "57 of the 58 tensors of the video branch; missing"),
        ("al", {"audio_llama_proj.bias": None}, "57 of the 58 tensors of the audio branch"),
        ("vl", {"llama_projection.weight": torch.zeros(2)}, "unexpected llama_projection.weight"),
        ("vl", {"llama_proj.bias": torch.zeros(80)}, "of width 80, but the base's has 48"),
        ("vl", {"video_query_tokens": torch.zeros(1, 9, 32)}, "wrong shape: video.query_tokens"),
        ("vl", {"llama_proj.bias": torch.full((48,), torch.nan)}, "NaN or infinite"),
    ],
)
def test_what_does_not_fit_is_named(which, changes, says, bases, tmp_path, capsys):
    given, out = checkpoint(tmp_path / "given.pth", which, **changes), tmp_path / "out"
    assert run(["convert", str(given), str(out), "--base", str(bases[True])]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert not out.exists()
