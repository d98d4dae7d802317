"""The command line with a family that has other defaults, fewer policies and fewer banks.

It is added as any family is: modules in a folder of its own, and a row in each of three tables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.commands import SAMPLE
from safetensors.torch import save_file

import malmm_cli
from malmm_cli import hub
from malmm_cli.checkpoints import layout
from malmm_cli.errors import ModelError, UsageError
from malmm_cli.hub.registry import KNOWN, Known
from malmm_cli.hub.snapshot import File, check_listed, is_complete, wanted
from malmm_cli.models import registry
from malmm_cli.models.base import Context, Features, Spec
from malmm_cli.models.instructblip.defaults import DEFAULTS
from malmm_cli.settings import Decoding, Defaults, MemoryOptions, Sampling, Settings
from malmm_cli.train import checks

HOW = (Sampling(frames=3), MemoryOptions(2, banks="visual"), Decoding(max_new_tokens=2, beams=1))
OTHERS = Defaults(
    {"caption": Settings("tell me", *HOW), "ask": Settings("Q: {}", *HOW)},
    policies=("mbc", "fifo"),
    banks=("visual",),
)
SPEC = Spec(
    *("sketch", 1, 3, None),
    policies=OTHERS.policies,
    banks=OTHERS.banks,
    defaults=OTHERS.tasks,
    parts={"encoder": ("",), "reader": ("",)},
    heads=1,
)
MEMORY = {"length": 2, "policy": "mbc", "banks": "visual"}


@dataclass
class Seen:
    """A memory that keeps everything."""

    prompts: tuple[str, ...]
    frames: int = 0
    rows: list[torch.Tensor] = field(default_factory=list)


class Sketch:
    """A model that sees a frame's mean colour, and answers with the prompt that it got."""

    spec, dtype = SPEC, torch.float32
    device = answers_on = torch.device("cpu")

    def frame_size(self, width, height):
        return (8, 4)

    def encode(self, frames, seconds):
        return Features(frames.float().mean((1, 2))[:, None], seconds[:, None].expand(-1, 2))

    def check(self, prompts, options, decoding, frames):
        pass

    def start(self, prompts, options, total=None, skipped=0):
        return Seen(tuple(prompts), skipped)

    def observe(self, memory, features):
        memory.rows.append(features.rows)
        memory.frames += len(features.rows)

    def context(self, memory):
        mean = torch.cat(memory.rows).mean(0)
        return Context(mean.expand(len(memory.prompts), -1, -1), [()] * len(memory.prompts))

    def generate(self, context, prompts, decoding, on_text=None):
        return [[f"heard {prompt}"] * decoding.beams for prompt in prompts]

    def bytes_for(self, work):
        return 100


@pytest.fixture
def family(monkeypatch) -> None:
    """The family, known to all who ask for one."""
    name = "malmm_cli.models.sketch"
    monkeypatch.setitem(sys.modules, f"{name}.defaults", SimpleNamespace(DEFAULTS=OTHERS))
    load = SimpleNamespace(load=lambda folder, **options: Sketch())
    monkeypatch.setitem(sys.modules, f"{name}.load", load)
    monkeypatch.setitem(registry.FAMILIES, "sketch_video", "sketch")
    monkeypatch.setitem(layout.FAMILIES, "sketch_video", layout.Layout((), "Sketcher", True))
    row = Known("sketch", "nobody/sketch", "MIT", 10, "float16", model_type="sketch_video")
    monkeypatch.setitem(KNOWN, "sketch", row)


@pytest.fixture
def folder(tmp_path, family) -> Path:
    """A model of the family."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "sketch_video"}')
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": torch.ones(2, 5)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def run(malmm, folder, tmp_path, monkeypatch) -> Callable[..., str]:
    """Runs a command with the model, in an own folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> str:
        done = malmm(*arguments, "--model", folder, "-q")
        assert (done.code, done.err) == (0, "")
        return done.out

    return run


def tasks(folder: Path) -> Path:
    lines = [
        {"id": "1", "video": str(SAMPLE), "question": "what moves?", "answer": "a circle"},
        {"id": "2", "video": str(SAMPLE), "prompt": "say it", "answer": "said"},
    ]
    path = folder / "tasks.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_a_caption_has_the_familys_defaults(run):
    said = json.loads(run("caption", SAMPLE, "--json"))
    assert (said["prompt"], said["frames"]["used"], said["memory"]) == ("tell me", 3, MEMORY)
    assert said["candidates"] == ["heard tell me"], "its defaults search with one beam"
    said = json.loads(run("caption", SAMPLE, "--json", "--frames", "5", "--policy", "fifo"))
    assert (said["prompt"], said["frames"]["used"]) == ("tell me", 5)
    assert said["memory"] == {**MEMORY, "policy": "fifo"}


def test_answers_have_the_familys_defaults(run):
    said = json.loads(run("ask", SAMPLE, "what moves?", "--json", "--memory", "1"))
    assert (said["prompt"], said["frames"]["used"]) == ("Q: what moves?", 3)
    assert said["memory"] == {**MEMORY, "length": 1}


def test_a_batch_has_the_familys_defaults(run, tmp_path):
    arguments = ("batch", tasks(tmp_path), SAMPLE, "-o", "out.jsonl")
    run(*arguments)
    written = (tmp_path / "out.jsonl").read_text()
    said = [json.loads(line) for line in written.splitlines()]
    assert [one["prompt"] for one in said] == ["tell me", "Q: what moves?", "say it"]
    for one in said:
        assert (one["frames"]["used"], one["memory"]) == (3, MEMORY)
    run(*arguments)
    assert (tmp_path / "out.jsonl").read_text() == written, "it is not done again"


def test_an_evaluation_has_the_familys_defaults(run, tmp_path):
    about = json.loads(run("eval", tasks(tmp_path), "--json", "--frames", "4"))
    assert about["questions"] == OTHERS.settings("ask", frames=4).as_dict()
    assert about["captions"] == OTHERS.settings("caption", frames=4).as_dict()
    assert about["scores"]["age"]["slots"] == 2


def test_an_ablation_has_the_policies_of_the_family(run, tmp_path, monkeypatch):
    monkeypatch.setattr("malmm_cli.evaluate.ablation.LENGTHS", (2,))
    monkeypatch.setattr("malmm_cli.evaluate.ablation.FRAMES", (3,))
    rows = json.loads(run("eval", tasks(tmp_path), "--ablate", "--json"))["rows"]
    names = [row["name"] for row in rows]
    assert names == ["visual, mbc, M = 2, 3 frames", "fifo", "M = 0", "last 4 frames"]


@pytest.mark.parametrize("model", ["folder", "name"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("caption", SAMPLE),
        ("ask", SAMPLE, "what moves?"),
        ("remember", SAMPLE, "-o", "memory.malmm"),
        ("batch", SAMPLE, "-o", "out.jsonl"),
        ("eval", "tasks.jsonl"),
        ("train", "tasks.jsonl", "-o", "trained"),
    ],
)
def test_what_the_family_lacks_is_refused_before_it_is_loaded(
    refused, folder, tmp_path, monkeypatch, arguments, model
):
    monkeypatch.setattr(registry, "load", None)
    tasks(tmp_path)
    given = (*arguments, "--model", folder if model == "folder" else "sketch")
    hint = "use one of mbc, fifo"
    refused(*given, "--policy", "last", code=2, says="--policy last: not available", hint=hint)
    if arguments[0] != "remember":
        says = "--banks query: not available"
        refused(*given, "--banks", "query", code=2, says=says, hint="use visual")


def test_what_a_loaded_model_lacks_is_refused(folder):
    model = malmm_cli.load(str(folder))
    for call in (malmm_cli.caption, lambda video, **how: malmm_cli.watch(video, ["a"], **how)):
        with pytest.raises(UsageError, match='policy="average": not available'):
            call(SAMPLE, model=model, policy="average")


def test_a_family_that_cannot_be_trained(refused, folder, tmp_path):
    says = "models of sketch cannot be trained"
    refused("train", tasks(tmp_path), "-o", "out", "--model", folder, "-q", code=2, says=says)


def test_a_family_that_shows_only_when_the_model_is_loaded(run, malmm, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "model_type", lambda name: None)
    assert json.loads(run("caption", SAMPLE, "--json"))["prompt"] == "tell me"
    assert json.loads(run("ask", SAMPLE, "what?", "--json"))["prompt"] == "Q: what?"
    chosen, choose = [], checks.choose_frames

    def noted(clips, settings, events):
        chosen.append(settings.sampling.frames)
        return choose(clips, settings, events)

    monkeypatch.setattr(checks, "choose_frames", noted)
    malmm("train", tasks(tmp_path), "-o", "out", "--model", tmp_path / "model", "-q")
    assert chosen == [20, 3]


def test_a_model_of_which_nothing_is_known(family):
    assert hub.model_type("sketch") == "sketch_video"
    assert hub.model_type("tiny") == "instructblip"
    assert hub.model_type("someone/never-downloaded") is None
    with pytest.raises(UsageError, match="unknown model 'no such name'"):
        hub.model_type("no such name")
    unknown = registry.defaults()
    assert unknown.tasks is DEFAULTS.tasks
    assert {*OTHERS.policies, *DEFAULTS.policies} <= {*unknown.policies}


def test_its_repository_needs_no_more_than_its_family(family, folder):
    files = ["config.json", "tokenizer.json", "merges.txt", "model.safetensors", "modeling.py"]
    listed = {name: File(name, 1, "0" * 40) for name in files}
    found = [file.name for file in wanted(listed, "nobody/sketch", lambda name: listed[name])]
    assert found == ["config.json", "merges.txt", "tokenizer.json", "model.safetensors"]
    assert is_complete(folder)
    check_listed(folder, found, "nobody/sketch")
    (folder / "config.json").write_text("damaged")
    assert is_complete(folder), "loading it says what is wrong"
    (folder / "config.json").write_text('{"model_type": "instructblip"}')
    assert not is_complete(folder)
    with pytest.raises(ModelError, match=r"missing qformer_tokenizer/tokenizer\.json"):
        check_listed(folder, found, "nobody/sketch")
