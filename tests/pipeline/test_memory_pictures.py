"""Memory files of vision-language models: rows for their model, pictures for any."""

import io
import json

import pytest
import torch
from helpers.commands import SAMPLE
from helpers.media_files import write_video
from helpers.memory_files import rewrite
from PIL import Image
from safetensors.torch import load_file

import malmm_cli
from malmm_cli.errors import CapacityError, MediaError
from malmm_cli.media import probe, read
from malmm_cli.models.vlm.load import ADAPTERS
from malmm_cli.pipeline import memory_pictures
from malmm_cli.pipeline.answer import answered
from malmm_cli.pipeline.memory_file import read_memory_file
from malmm_cli.pipeline.remembering import recall, remember
from malmm_cli.pipeline.watch import watch_whole

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = {"frames": 13, "memory": 4}
KEEP = {**FEW, "fill": "keep"}
PAIRS, SINGLES = "qwen3_vl", "smolvlm"
QUESTIONS = ["what moves?", "which colour?"]


@pytest.fixture
def path(vlm, clip, tmp_path):
    remember(clip, vlm(PAIRS), **KEEP).write(tmp_path / "a.memory")
    return tmp_path / "a.memory"


@pytest.mark.parametrize("name", ADAPTERS)
def test_rows_in_half_precision_are_those_of_the_video(vlm, clip, tmp_path, name):
    model, path = vlm(name), tmp_path / "a.memory"
    settings = model.settings("ask", **FEW)
    _, due = watch_whole(clip, QUESTIONS, model, settings)
    remember(clip, model, settings).write(path)
    kept = read_memory_file(path, model)
    assert (kept.holds, kept.slots.dtype) == ("rows", torch.float16)
    assert {rider.dtype for rider in kept.riders.values()} <= {torch.float16}
    _, found = recall(kept, QUESTIONS, model, settings)
    torch.testing.assert_close(found.tokens, due.tokens, atol=5e-3, rtol=2e-3)
    assert found.extras.keys() == due.extras.keys()
    for extra, value in due.extras.items():
        torch.testing.assert_close(found.extras[extra], value, atol=5e-3, rtol=2e-3)


@pytest.mark.parametrize("name", ADAPTERS)
def test_answers_from_rows_are_those_from_the_video(vlm, clip, monkeypatch, name):
    """Without rounding, which may decide between words that random weights find as likely."""
    monkeypatch.setattr(torch.Tensor, "half", lambda x: x)
    model = vlm(name)
    settings = model.settings("ask", **FEW, max_new_tokens=8)
    _, due = watch_whole(clip, QUESTIONS, model, settings)
    _, found = recall(remember(clip, model, settings), QUESTIONS, model, settings)
    texts = [answered(model.net, one, QUESTIONS, settings.decoding) for one in (found, due)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", [PAIRS, SINGLES])
def test_a_picture_stands_for_each_slot(vlm, clip, name):
    model = vlm(name)
    kept = remember(clip, model, **KEEP)
    shown = kept.pictures.shown.tolist()
    assert kept.slots is None
    assert kept.counts.shape == (5, 1)
    assert kept.counts.sum() == kept.features == model.net.spec.features(13)
    per = model.net.spec.frames_per_feature
    assert len(kept.pictures.files) == 5 * per - (per - 1), "the last one has no pair"
    assert shown[-1] == [kept.last] * 2
    info, due = probe(clip), kept.pictures.seconds
    frames = {frame.seconds: frame.pixels for frame in read(info, due)}
    for second, file in zip(due, kept.pictures.files, strict=True):
        pixels = torch.from_numpy(memory_pictures._pixels(file).astype(int))
        assert (pixels - torch.from_numpy(frames[second])).abs().float().mean() < 4


@pytest.mark.parametrize("policy", ["mbc", "ward", "uniform", "fifo", "random"])
@pytest.mark.parametrize("name", [PAIRS, SINGLES])
def test_pictures_that_lose_nothing_are_exact(vlm, clip, tmp_path, lossless, name, policy):
    model, path = vlm(name), tmp_path / "a.memory"
    settings = model.settings("ask", **KEEP, policy=policy)
    _, due = watch_whole(clip, QUESTIONS, model, settings)
    remember(clip, model, settings).write(path)
    kept = read_memory_file(path, model)
    _, found = recall(kept, QUESTIONS, model, kept.settings(model.settings("ask")))
    torch.testing.assert_close(found.tokens, due.tokens, atol=1e-5, rtol=0)
    for extra, value in due.extras.items():
        torch.testing.assert_close(found.extras[extra], value, atol=1e-5, rtol=0)


def test_any_model_reads_pictures(vlm, path, load_once, write_model, t5_folder):
    placed = malmm_cli.load(str(write_model("vicuna", positions=5)))
    readers = [vlm(SINGLES), vlm("internvl"), malmm_cli.load(str(t5_folder)), placed]
    for model in readers:
        one, _ = malmm_cli.ask(path, QUESTIONS, model=model, beams=1, max_new_tokens=4)
        assert (one.model, one.frames, one.memory, one.fill) == (model.name, 13, 4, "keep")
        assert (one.first, one.duration) == (0.0, 2.0)
    own, _ = malmm_cli.ask(path, QUESTIONS, max_new_tokens=4)
    assert own.model == vlm(PAIRS).name
    named, _ = malmm_cli.ask(path, QUESTIONS, model=str(t5_folder), beams=1, max_new_tokens=2)
    assert named.model == str(t5_folder)


def test_the_command_line_takes_any_model(malmm, refused, path, vlm_folder, tmp_path, monkeypatch):
    few = ("--max-new-tokens", "2", "--beams", "1", "-q")

    def used(*arguments):
        done = malmm(*arguments, *few, "--format", "jsonl")
        assert (done.code, done.err) == (0, "")
        return {json.loads(line)["model"] for line in done.out.splitlines()}

    own = str(vlm_folder(PAIRS))
    assert used("ask", path, "what?") == {own}
    assert used("ask", path, "what?", "--model", "tiny") == {"tiny"}
    assert used("caption", path, "--model", vlm_folder(SINGLES)) == {str(vlm_folder(SINGLES))}
    remember(SAMPLE, "tiny", frames=3).write(rows := tmp_path / "rows.memory")
    assert used("caption", path, rows) == {"tiny"}, "pictures are read by whatever the rows need"
    refused("caption", path, rows, *few, "--model", own, code=2, says="was made with tiny")
    refused("ask", path, "what?", "--fill", "mean", code=2, says="this was fixed")
    monkeypatch.setenv("MALMM_MODEL", "tiny")
    assert used("ask", path, "what?") == {"tiny"}


def test_a_reader_with_positions_places_pictures_where_they_were_shown(vlm, path, write_model):
    """Times decide, not the number of the slot."""
    model = malmm_cli.load(str(write_model("flan-t5", positions=7)))
    kept = read_memory_file(path, model)
    slots = kept.as_slots(model)
    memory = model.net.restore((), kept.settings(model.settings("ask")).memory, slots, 7)
    ends = kept.counts[:, 0].cumsum(0)
    table = model.net.position_embedding.weight
    for row, raw, count, end in zip(
        memory.slots().rows, slots.rows, kept.counts, ends, strict=True
    ):
        places = range(int(end - count), int(end))
        assert any(torch.allclose(row, raw + table[place], atol=1e-5) for place in places)


def test_pictures_are_small(vlm, tmp_path):
    wide = write_video(tmp_path / "wide.mp4", 3, size=(1600, 400))
    kept = remember(wide, vlm(SINGLES), **KEEP)
    sizes = {Image.open(io.BytesIO(file)).size for file in kept.pictures.files}
    assert sizes == {(768, 192)}
    assert (kept.width, kept.height) == (1600, 400)


def test_too_many_slots_for_another_model_are_refused_before_they_are_encoded(
    vlm, path, monkeypatch
):
    model = vlm(SINGLES)
    monkeypatch.setattr(model.net.adapter.__class__, "encode", lambda *_: pytest.fail("encoded"))
    with pytest.raises(CapacityError, match="5 slots of"):
        malmm_cli.ask(path, QUESTIONS, model=model, max_new_tokens=2048)


def jpeg(size, mode="RGB"):
    Image.new(mode, size).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


def held(files):
    sizes = torch.tensor([len(file) for file in files], dtype=torch.int32)
    content = torch.frombuffer(bytearray(b"".join(files)), dtype=torch.uint8)
    return {"pictures": content, "sizes": sizes}


@pytest.mark.parametrize(
    "file",
    [b"", b"\xff\xd8\xff", b"GIF89a", jpeg((769, 4)), jpeg((9000, 9000)), jpeg((8, 8), "L")],
    ids=["none", "begun", "other", "wide", "large", "grey"],
)
def test_what_is_no_picture_of_ours(vlm, path, file):
    files = [*read_memory_file(path, vlm(PAIRS)).pictures.files]
    rewrite(path, held([*files[:-1], file]))
    broken(path, vlm(SINGLES), "picture")


def test_a_truncated_picture(vlm, path):
    files = [*read_memory_file(path, vlm(PAIRS)).pictures.files]
    rewrite(path, held([files[0][: len(files[0]) // 2], *files[1:]]))
    broken(path, vlm(SINGLES), "a picture is damaged")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: {"sizes": t["sizes"] * 2}, "sizes of pictures"),
        (lambda t: {"sizes": -t["sizes"]}, "sizes of pictures"),
        (lambda t: {"sizes": t["sizes"][:-1]}, "sizes of pictures"),
        (lambda t: {"sizes": t["sizes"].repeat(3)}, "it holds"),
        (lambda t: {"shown": t["shown"] * torch.nan}, "pictures for|inconsistent"),
        (lambda t: {"shown": t["shown"] + 1}, "times of pictures"),
        (lambda t: {"shown": t["shown"].flip(0)}, "times of pictures"),
        (lambda t: {"shown": t["shown"].flip(1)}, "times of pictures"),
        (lambda t: {"shown": t["shown"][:4]}, "it holds"),
        (lambda t: {"counts": t["counts"] + 1}, "counts or times"),
        (lambda t: {"counts": t["counts"].repeat(1, 2)}, "it holds"),
        (lambda t: {"pictures": t["pictures"].float()}, "it holds"),
        (lambda t: {"slots": t["seconds"].half()}, "it holds"),
    ],
)
def test_false_claims_about_pictures_are_noticed(vlm, path, change, says):
    rewrite(path, change(load_file(path)))
    broken(path, vlm(SINGLES), says)


@pytest.mark.parametrize(
    "about", [{"width": None}, {"height": 0}, {"features": None}, {"holds": "rows"}]
)
def test_false_metadata_of_pictures(vlm, path, about):
    rewrite(path, about=about)
    broken(path, vlm(PAIRS), "")


def broken(path, model, says):
    with pytest.raises(MediaError, match=f"is a damaged memory file: .*({says})") as caught:
        malmm_cli.ask(path, QUESTIONS, model=model, max_new_tokens=2)
    assert caught.value.kind == "BrokenMemory"
