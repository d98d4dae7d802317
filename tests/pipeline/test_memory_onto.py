"""A video that comes after what a memory file holds: as if both had been one."""

import json

import pytest
import torch
from helpers.commands import SAMPLE, WORDS
from helpers.media_files import write_video
from helpers.memory_files import rewrite
from safetensors.torch import load_file

import malmm_cli
from malmm_cli.errors import MediaError, UsageError
from malmm_cli.memory.spans import Slots
from malmm_cli.models.vlm import random_init
from malmm_cli.pipeline.features import encode
from malmm_cli.pipeline.memory_file import read_memory_file
from malmm_cli.pipeline.remembering import remember

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"frames": 9, "memory": 4}
PAIRS, SINGLES = "qwen3_vl", "smolvlm"


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    """Another video of the same shape, 1.2 s long."""
    return write_video(tmp_path_factory.mktemp("more") / "more.mp4", 30, first=70)


def in_one(model, videos, settings) -> Slots:
    """What a memory holds that saw the features of all videos, one after the other."""
    memory, begins = model.net.start((), settings.memory), 0.0
    for video in videos:
        found = encode(video, model, settings)
        for chunk in found.chunks:
            model.net.observe(memory, chunk.later(begins))
        begins += found.info.duration
    return memory.slots()


@pytest.mark.usefixtures("lossless")
@pytest.mark.parametrize("policy", ["mbc", "ward", "fifo", "random"])
@pytest.mark.parametrize("fill", ["mean", "keep"])
@pytest.mark.parametrize("name", [PAIRS, SINGLES])
def test_two_videos_are_as_one(
    vlm, clip, more, tmp_path, lossless, monkeypatch, name, fill, policy
):
    """But for half precision and what JPEG loses."""
    monkeypatch.setattr(torch.Tensor, "half", lambda x: x)
    model, path = vlm(name), tmp_path / "a.memory"
    settings = model.settings("caption", **FEW, fill=fill, policy=policy)
    first = remember(clip, model, settings)
    monkeypatch.setattr("malmm_cli.pipeline.remembering.read_memory_file", lambda *_, **__: first)
    first.write(path)
    both = remember(more, model, onto=path)
    due, found = in_one(model, [clip, more], settings), both.as_slots(model)
    torch.testing.assert_close(found.rows, due.rows, atol=1e-5, rtol=0)
    assert torch.equal(found.counts, due.counts)
    assert torch.equal(found.seconds, due.seconds)
    for rider, values in due.riders.items():
        torch.testing.assert_close(found.riders[rider], values, atol=1e-5, rtol=0)
    assert (both.frames, both.features) == (18, 2 * model.net.spec.features(9))
    assert (both.first, both.duration) == (0.0, first.duration + 1.2)
    assert both.last == first.duration + 29 / 25
    names = [(video["name"], video["begins"]) for video in both.videos]
    assert names == [(clip.name, 0.0), (more.name, first.duration)]


def test_pictures_of_old_slots_stay_as_they_are(vlm, clip, more, tmp_path):
    model, path = vlm(PAIRS), tmp_path / "a.memory"
    first = remember(clip, model, **FEW, fill="keep")
    first.write(path)
    both = remember(more, onto=path)
    assert both.model == model.name
    old = dict(zip(first.pictures.seconds, first.pictures.files, strict=True))
    new = dict(zip(both.pictures.seconds, both.pictures.files, strict=True))
    kept = {second for second in new if second < first.duration}
    assert kept
    assert all(new[second] == old[second] for second in kept)
    assert len(new) > len(kept)


def test_half_precision_hardly_matters(vlm, clip, more, tmp_path):
    model, path = vlm(SINGLES), tmp_path / "a.memory"
    settings = model.settings("caption", **FEW)
    remember(clip, model, settings).write(path)
    remember(more, model, onto=path).write(path, overwrite=True)
    found, due = read_memory_file(path, model), in_one(model, [clip, more], settings)
    torch.testing.assert_close(found.slots.float(), due.rows, atol=5e-3, rtol=5e-3)
    assert malmm_cli.ask(path, "what moves?", max_new_tokens=4)[0].frames == 18


def test_a_model_of_the_other_family(clip, more, tmp_path, t5_folder, write_model):
    """It goes on where no table of positions places its frames."""
    model, path = malmm_cli.load(str(t5_folder)), tmp_path / "a.memory"
    settings = model.settings("caption", **FEW)
    remember(clip, model, settings).write(path)
    both = remember(more, model, onto=path)
    due = in_one(model, [clip, more], settings)
    torch.testing.assert_close(both.slots.float(), due.rows, atol=5e-3, rtol=5e-3)
    placed = malmm_cli.load(str(write_model("flan-t5", positions=7)))
    remember(clip, placed, settings).write(path, overwrite=True)
    with pytest.raises(UsageError, match="cannot go on after a memory file: its table") as caught:
        remember(more, placed, onto=path)
    assert caught.value.hint == "join the videos, and remember the whole"


def test_a_part_of_the_second_video(vlm, clip, more, tmp_path):
    model, path = vlm(SINGLES), tmp_path / "a.memory"
    remember(clip, model, **FEW, start=0.4, end=1.0).write(path)
    both = remember(more, model, onto=path, start=0.5, end=0.9, decoder="pyav")
    assert both.last == pytest.approx(2.9, abs=0.05)
    assert (both.first, both.duration) == (pytest.approx(0.4, abs=0.05), pytest.approx(3.2))
    assert (both.sampling["start"], both.sampling["end"], both.sampling["decoder"]) == (
        *(0.4, None),
        "auto",
    )
    both.write(path, overwrite=True)
    (told,) = malmm_cli.ask(path, "what moves?", model=model, max_new_tokens=2)
    assert (told.segments[0].start, told.segments[0].end) == (0.4, both.duration)


def test_what_comes_after_a_still_picture(vlm, more, tmp_path):
    """It lasts no time; two pictures at one moment could not be told apart."""
    from PIL import Image

    model, path = vlm(SINGLES), tmp_path / "a.memory"
    with_same_shape = tmp_path / "still.png"
    Image.new("RGB", (64, 48), "red").save(with_same_shape)
    first = remember(with_same_shape, model, **FEW, fill="keep")
    first.write(path)
    both = remember(more, model, onto=path)
    assert both.pictures.files[0] == first.pictures.files[0]
    assert both.pictures.files[1] != first.pictures.files[0]
    assert len(set(both.pictures.seconds)) == len(both.pictures.files)


def test_the_commands(malmm, refused, vlm_folder, clip, more, tmp_path):
    file, other = tmp_path / "a.memory", tmp_path / "b.memory"
    how = ("--fps", "4", "--memory", "4", "--fill", "keep", "-m", vlm_folder(SINGLES))
    assert malmm("remember", clip, "-o", file, *how, "-q").code == 0
    before = file.read_bytes()
    done = malmm("remember", more, "--onto", file, "-o", other)
    assert (done.code, done.out) == (0, "")
    assert "b.memory: 13 frames in 5 slots, 5 pictures, 0.0" in done.err
    assert file.read_bytes() == before
    refused("remember", more, "--onto", file, "-o", other, code=2, says="exists")
    assert malmm("remember", more, "--onto", file, *how, "-q").code == 0, "what fits may be said"
    one, two = load_file(file), load_file(other)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    told = json.loads(malmm("ask", file, "what?", "--json", "--max-new-tokens", "2").out)
    assert told["frames"] == {"used": 13, "first": 0.0, "last": 3.0, "duration": 3.2}
    assert malmm("remember", more, "--onto", file, "-q").code == 0
    told = json.loads(malmm("ask", file, "what?", "--json", "--max-new-tokens", "2").out)
    assert told["frames"]["duration"] == 4.4


def test_what_does_not_fit(refused, vlm_folder, vlm, clip, tmp_path, load_once, monkeypatch):
    file = tmp_path / "a.memory"
    remember(clip, vlm(PAIRS), **FEW).write(file)
    fixed = "is a memory file, and this was fixed when it was made"
    for option in (("--fps", "2"), ("--memory", "5"), ("--fill", "keep"), ("--seed", "3")):
        says = f"{option[0]}: {file} {fixed}"
        refused("remember", clip, "--onto", file, *option, code=2, says=says, hint="leave it out")
    says = f"{file}: was made with {vlm_folder(PAIRS)}, not with tiny"
    refused("remember", clip, "--onto", file, "-m", "tiny", code=2, says=says, hint="--model")
    other = f"{tmp_path / 'none.memory'}"
    refused("remember", clip, "--onto", other, code=2, says=f"{other}: no such file", hint="make")
    refused("remember", clip, "--onto", clip, code=2, says="not a memory file")
    refused("remember", file, "--onto", file, code=2, says="is the input file")
    refused("remember", clip, code=2, says="needs -o FILE, or --onto FILE")
    refused("remember", "none.mp4", "--onto", file, code=2, says="no such file")
    tall = write_video(tmp_path / "tall.mp4", 3, size=(32, 128))
    says = "tall.mp4: its pictures, 32 × 128, have another shape than those of"
    refused("remember", tall, "--onto", file, "-q", code=2, says=says, hint="a file of its own")
    about = {"model": str(tmp_path / "gone")}
    rewrite(file, about=about)
    says = f"{file}: was made with the model in {tmp_path / 'gone'}, which does not exist"
    refused("remember", clip, "--onto", file, code=2, says=says, hint="use --model FOLDER")


@pytest.mark.parametrize("fill", ["mean", "keep"])
def test_a_model_with_other_weights_cannot_go_on(vlm, clip, more, tmp_path, fill):
    """Not with pictures either: what it sees in them is something else."""
    path, folder = tmp_path / "a.memory", tmp_path / "other"
    remember(clip, vlm(SINGLES), **FEW, fill=fill).write(path)
    random_init.write(folder, random_init.tiny_config(SINGLES), WORDS, seed=1)
    with pytest.raises(MediaError, match="was made by another model") as caught:
        remember(more, malmm_cli.load(str(folder)), onto=path)
    assert caught.value.kind == "OtherModel"


def test_a_video_that_breaks_leaves_the_file_as_it_was(refused, vlm, clip, tmp_path):
    file, broken = tmp_path / "a.memory", tmp_path / "broken.mp4"
    remember(clip, vlm(SINGLES), **FEW, fill="keep").write(file)
    before = file.read_bytes()
    broken.write_bytes(SAMPLE.read_bytes()[:3000])
    refused("remember", broken, "--onto", file, code=2, says="broken.mp4")
    assert file.read_bytes() == before
