"""What is remembered of a video, in a file: what is exact, what it takes, what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import SAMPLE
from helpers.memory_files import rewrite
from safetensors import safe_open

import malmm_cli
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.memory.bank import PlainBank
from malmm_cli.memory.spans import Slots, feature_seconds, spans
from malmm_cli.models import registry
from malmm_cli.models.instructblip.defaults import CAPTION
from malmm_cli.pipeline import memory_file, remembering, watch
from malmm_cli.pipeline.features import encode
from malmm_cli.pipeline.memory_header import is_memory_file
from malmm_cli.settings import Settings, changed

FEW = {"frames": 12, "memory": 4, "beams": 1, "max_new_tokens": 6}
SETTINGS = changed(CAPTION, **FEW)


@pytest.fixture
def model(monkeypatch, load_once, one_thread, t5_folder):
    monkeypatch.setattr(registry, "load", load_once)
    return malmm_cli.load(str(t5_folder))


@pytest.fixture
def kept(model):
    return remembering.remember(SAMPLE, model, SETTINGS)


@pytest.fixture
def path(kept, tmp_path):
    kept.write(tmp_path / "a.memory")
    return tmp_path / "a.memory"


def test_slots_are_means_of_frames(model, kept):
    assert kept.slots.shape == (5, 65, 96)
    assert (kept.counts.sum(0) == 12).all()
    features = torch.cat([chunk.rows for chunk in encode(SAMPLE, model, SETTINGS).chunks])
    bank = PlainBank(4)
    for feature in features[:-1]:
        bank.read(feature[None], lambda rows: [])
        bank.append(lambda rows: [])
    assert torch.equal(kept.counts[:-1].float(), bank.counts[0])
    torch.testing.assert_close(kept.slots[:-1].float(), bank.entries[0], atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(kept.slots[-1], features[-1].half())
    seconds = torch.linspace(0, kept.last, 12, dtype=torch.float64)
    assert (kept.seconds[0, :, 0] == 0).all()
    assert (kept.seconds[-1] == kept.last).all()
    begin = kept.counts.cumsum(0) - kept.counts
    torch.testing.assert_close(kept.seconds[..., 0], seconds[begin.long()], atol=0.06, rtol=0)


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
@pytest.mark.parametrize("positions", [0, 7])
def test_the_visual_bank_alone_is_exact(model, write_model, policy, positions):
    """But for half precision: with slots that were not rounded, tokens are the same."""
    if positions:
        model = malmm_cli.load(str(write_model("flan-t5", positions=positions)))
    settings = changed(SETTINGS, policy=policy, banks="visual")
    prompts = ["what moves?", "which colour does the circle have?"]
    _, due = watch.watch_whole(SAMPLE, prompts, model, settings)
    kept = remembering.remember(SAMPLE, model, settings)
    _, rounded = remembering.recall(kept, prompts, model, settings)
    torch.testing.assert_close(rounded.tokens, due.tokens, atol=5e-3, rtol=5e-3)


def test_rounding_is_all_that_differs(model, monkeypatch):
    settings = changed(SETTINGS, banks="visual")
    _, due = watch.watch_whole(SAMPLE, ["what?"], model, settings)
    monkeypatch.setattr(torch.Tensor, "half", lambda x: x)
    kept = remembering.remember(SAMPLE, model, settings)
    _, same = remembering.recall(kept, ["what?"], model, settings)
    torch.testing.assert_close(same.tokens, due.tokens, atol=1e-5, rtol=1e-5)


def test_a_short_video_is_kept_whole_and_both_banks_are_exact(model):
    settings = changed(SETTINGS, memory=11)  # 12 frames: the last finds 11
    _, due = watch.watch_whole(SAMPLE, ["what?"], model, settings)
    kept = remembering.remember(SAMPLE, model, settings)
    _, same = remembering.recall(kept, ["what?"], model, settings)
    torch.testing.assert_close(same.tokens, due.tokens, atol=5e-3, rtol=5e-3)


def test_questions_to_a_file(model, path):
    answers = malmm_cli.ask(path, ["what moves?", "where?"], model=model, max_new_tokens=5)
    assert [answer.question for answer in answers] == ["what moves?", "where?"]
    one = answers[0]
    assert (one.video, one.memory, one.frames, one.policy) == (str(path), 4, 12, "mbc")
    assert (one.first, one.last, one.duration) == (0.0, 59.95, 60.0)
    (alone,) = malmm_cli.ask(path, "what moves?", model=model, max_new_tokens=5)
    assert alone.text == one.text
    assert malmm_cli.caption(path, model=model, beams=1, max_new_tokens=6).text


def test_the_size_does_not_hang_on_the_length(model, tmp_path):
    sizes = [
        remembering.remember(SAMPLE, model, changed(SETTINGS, frames=frames)).write(
            tmp_path / "x", overwrite=True
        )
        for frames in (30, 60)
    ]
    assert abs(sizes[0] - sizes[1]) < 16
    slot = (sizes[0] - 2048) / 5
    assert slot < 65 * (96 * 2 + 20) + 8
    assert 257 * (1408 * 2 + 20) + 2048 < 0.75e6, "at true sizes, with all of a header on one slot"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"memory": 0}, "--memory 0: a file holds 1 to 9999 slots"),
        ({"memory": 10_000}, "--memory 10000"),
        ({"policy": "average"}, "--policy average keeps no memory"),
    ],
)
def test_settings_that_keep_nothing(model, changes, says):
    with pytest.raises(UsageError, match=says):
        remembering.remember(SAMPLE, model, changed(CAPTION, **changes))


def test_a_file_of_another_model(path, write_model):
    other = malmm_cli.load(str(write_model("flan-t5", seed=1)))
    with pytest.raises(MediaError, match=r"was made by another model, .*flan-t5") as caught:
        malmm_cli.ask(path, ["what?"], model=other)
    assert caught.value.kind == "OtherModel"


def test_another_model_by_its_name_is_refused_before_it_is_looked_for(path):
    with pytest.raises(UsageError, match=r"was made with .*, not with vicuna-7b"):
        malmm_cli.ask(path, ["what?"], model="vicuna-7b")


def test_any_numbers_of_the_same_model_will_do(path, t5_folder):
    half = malmm_cli.load(str(t5_folder), dtype="bfloat16")
    assert malmm_cli.ask(path, ["what?"], model=half)[0].text


@pytest.mark.parametrize(
    ("tensors", "about", "says"),
    [
        ({"slots": torch.zeros(5, 65, 95).half()}, {}, "it holds"),
        ({"slots": torch.zeros(5, 65, 96)}, {}, "it holds"),
        ({"slots": torch.zeros(6, 65, 96).half()}, {}, "it holds"),
        ({"more": torch.zeros(1)}, {}, "it holds"),
        (
            {"slots": torch.full((5, 65, 96), torch.nan).half()},
            {},
            "counts or times are inconsistent",
        ),
        ({"counts": torch.ones(5, 65).int()}, {}, "counts or times are inconsistent"),
        ({"counts": torch.zeros(5, 65).int()}, {}, "counts or times are inconsistent"),
        ({}, {"frames": 4, "features": 4}, "it holds"),
        ({}, {"frames": 4}, "inconsistent metadata"),
        ({}, {"features": 13}, "inconsistent metadata"),
        ({}, {"features": 11}, "counts or times are inconsistent"),
        ({}, {"holds": "sounds"}, "'holds': "),
        ({}, {"holds": "pictures"}, "'sizes'"),
        ({}, {"videos": []}, "'videos' is empty"),
        ({}, {"width": 0}, "'width': must be at least 1"),
        ({}, {"frames": "12"}, "'frames': expected a whole number, got text"),
        ({}, {"duration": float("nan")}, "'duration': must be above -"),
        ({}, {"duration": -5}, "inconsistent metadata"),
        ({}, {"duration": 10**400}, "'duration': number out of range"),
        ({}, {"frames": 2**70}, "'frames': "),
        ({}, {"first": 50, "last": -50}, "inconsistent metadata"),
        ({}, {"sampling": {}}, "'sampling': no 'frames'"),
        ({}, {"else": 1}, "unknown field 'else'"),
        ({}, {"warnings": [1]}, "'warnings.0.': expected text, got a whole number"),
    ],
)
def test_false_claims_are_noticed(model, path, tensors, about, says):
    rewrite(path, tensors, about)
    with pytest.raises(MediaError, match=f"is a damaged memory file: .*{says}") as caught:
        malmm_cli.ask(path, ["what?"], model=model)
    assert caught.value.kind == "BrokenMemory"


def test_a_bit_that_turned_is_noticed(model, path):
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(MediaError, match="is a damaged memory file: checksum mismatch"):
        malmm_cli.ask(path, ["what?"], model=model)


@pytest.mark.parametrize("claim", [{"frames": -4}, {"start": 99999}, {"memory": 2**70}])
def test_settings_that_no_run_had(model, path, claim):
    rewrite(path, about={"sampling": {**sampling(path), **claim}})
    with pytest.raises(MediaError, match="is a damaged memory file: inconsistent metadata"):
        malmm_cli.ask(path, ["what?"], model=model)


def test_a_changed_header_is_noticed(model, path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"frames\\": 12', b'"frames\\": 13'))
    assert path.read_bytes() != content
    with pytest.raises(MediaError, match="is a damaged memory file"):
        malmm_cli.ask(path, ["what?"], model=model)


def sampling(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["about"])["sampling"]


def test_a_file_of_version_1():
    """It was written by an earlier malmm: 12 frames of the sample in 4 slots."""
    path = Path(__file__).parents[1] / "golden" / "version-1.malmm"
    tiny = malmm_cli.load("tiny")
    kept = memory_file.read_memory_file(path, tiny)
    assert (kept.frames, kept.counts.sum(0).unique().tolist()) == (12, [12])
    assert kept.seconds[0, 0, 0] == kept.first
    assert (kept.seconds[-1] - kept.last).abs().max() < 1e-5
    said = {
        "what comes first?": "black moon",
        "what does the red star do?": "nothing",
        "which colour does the circle have?": "nothing",
    }
    answers = malmm_cli.ask(path, list(said), model=tiny)
    assert {answer.question: answer.text for answer in answers} == said


def test_a_file_of_version_2(refused):
    """As one of version 1; nothing can be added to it, since it does not say enough."""
    path = Path(__file__).parents[1] / "golden" / "version-2.memory"
    tiny = malmm_cli.load("tiny")
    kept = memory_file.read_memory_file(path, tiny)
    assert (kept.frames, kept.features, len(kept.counts), kept.holds) == (12, 12, 4, "rows")
    assert kept.videos == [{"name": "shapes.mp4", "begins": 0.0}]
    said = {
        "what comes first?": "black moon",
        "what does the red star do?": "nothing",
        "which colour does the circle have?": "nothing",
    }
    answers = malmm_cli.ask(path, list(said), model=tiny)
    assert {answer.question: answer.text for answer in answers} == said
    says = "is of version 2, which nothing can be added to"
    refused("remember", SAMPLE, "--onto", path, code=2, says=says, hint="rebuild it")


def test_what_is_cut_off_or_new(model, path):
    content = path.read_bytes()
    for length in (len(content) - 1, 5000):
        path.write_bytes(content[:length])
        with pytest.raises(MediaError, match="is a damaged memory file"):
            malmm_cli.ask(path, ["what?"], model=model)
    path.write_bytes(content)
    rewrite(path, format="malmm-memory/4")
    with pytest.raises(MediaError, match=r"of version 4; up to version 3 can be read"):
        malmm_cli.ask(path, ["what?"], model=model)


def test_wrong_values_of_settings_in_a_file(model, path, kept):
    for name, value in (("memory", "4"), ("memory", None), ("fps", "x"), ("policy", "last")):
        kept.write(path, overwrite=True)
        rewrite(path, about={"sampling": {**kept.sampling, name: value}})
        with pytest.raises(MediaError, match="is a damaged memory file"):
            malmm_cli.ask(path, ["what?"], model=model)


def test_what_is_no_memory_file(tmp_path, clip):
    assert not is_memory_file(clip)
    assert not is_memory_file(tmp_path)
    assert not is_memory_file(tmp_path / "nope")
    for content in (b"", b"\0" * 100, b"\xff" * 100):
        (tmp_path / "x").write_bytes(content)
        assert not is_memory_file(tmp_path / "x")


def test_the_sampling_of_a_file_stands_above_settings(kept):
    other = {"policy": "random", "merge": "frame", "mean": "plain", "memory_seed": 3}
    settings = kept.settings(changed(Settings(prompt="{}"), fps=2.0, **other))
    sampling, memory = settings.sampling, settings.memory
    assert (sampling.frames, sampling.fps, memory.length) == (12, None, 4)
    assert replace(SETTINGS, prompt="{}", decoding=settings.decoding) == settings


def test_a_file_keeps_what_a_full_bank_does(model, tmp_path):
    how = {"policy": "random", "merge": "frame", "mean": "plain"}
    kept = remembering.remember(SAMPLE, model, SETTINGS, **how, seed=2**64 - 1)
    kept.write(tmp_path / "a.memory")
    few = {"beams": 1, "max_new_tokens": 2, "seed": 5}
    (one,) = malmm_cli.ask(tmp_path / "a.memory", "what?", model=model, **few)
    assert (one.policy, one.merge, one.mean, one.memory_seed) == (*how.values(), 2**64 - 1)
    memory = {"length": 4, "banks": "both", **how, "seed": 2**64 - 1}
    assert one.to_dict()["memory"] == memory
    for name in ("merge", "mean"):
        with pytest.raises(UsageError, match=rf"{name}: .* this was fixed when it was made"):
            malmm_cli.ask(tmp_path / "a.memory", "what?", model=model, **{name: how[name]})


def test_a_usual_file_names_no_more_than_before(kept):
    assert {"merge", "mean", "memory_seed"}.isdisjoint(kept.sampling)


def test_the_commands(malmm, refused, clip, tmp_path):
    file = tmp_path / "clip.memory"
    run = ("--model", "tiny", "--frames", "6", "--memory", "2")
    done = malmm("remember", clip, "-o", file, *run)
    assert (done.code, done.out) == (0, "")
    assert "clip.memory: 6 frames in 3 slots, 0.0" in done.err
    few = ["--model", "tiny", "--beams", "2", "--max-new-tokens", "4", "-q"]
    assert malmm("ask", file, "what?", *few).out.count("\n") == 1
    assert malmm("caption", file, *few).out.count("\n") == 1
    assert malmm("caption", file, clip, *few, "--format", "jsonl").out.count("\n") == 2
    for option, value in (("--fps", "1"), ("--memory", "3"), ("--from", "1")):
        says = f"{option}: {file} is a memory file"
        refused("ask", file, "what?", *few, option, value, code=2, says=says)
    refused("remember", clip, "-o", file, *run, code=2, says="exists", hint="--overwrite")
    refused("remember", file, "-o", "x", *run, code=2, says="is already a memory file")
    refused("remember", clip, "-o", "x", "--policy", "last", code=2, says="keeps no memory")
    file.write_bytes(file.read_bytes()[:-1])
    refused("ask", file, "what?", *few, code=2, says="is a damaged memory file")


def test_times_of_slots():
    counts = torch.tensor([[1, 2], [2, 1]])
    seconds = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])[:, None].expand(-1, 2)
    found = spans(counts, seconds)  # as fifo keeps them: two frames went before
    assert found.tolist() == [[[2, 2], [2, 3]], [[3, 4], [4, 4]]]
    slots = Slots(torch.zeros(2, 2, 1), counts, found.double())
    assert feature_seconds(slots, 5)[2:].tolist() == [[2, 2], [3, 3], [4, 4]]


def test_a_file_is_no_text_to_print(refused, clip):
    refused(
        "remember", clip, "-o", "-", "--model", "tiny", code=2, says="-o -: a memory file cannot be"
    )
