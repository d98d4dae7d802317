"""Whatever is wrong is told in one plain line, with the right exit code, and nothing is written."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE
from helpers.media_files import write_cover, write_sound
from PIL import Image
from safetensors.torch import load_file, save_file

from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.pipeline import loading


def write_bad_files(folder, clip):
    """One file of each kind that cannot be used as a video."""
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("Dear diary, today I filmed nothing.\n" * 20)
    (folder / "cut.mp4").write_bytes(clip.read_bytes()[:2000])  # before its index
    write_sound(folder / "sound.wav")
    Image.new("RGB", (64, 64), "red").save(folder / "cover.jpg")
    write_cover(folder / "cover.mp3", folder / "cover.jpg")
    (folder / "list.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:1/secret.ts\n")
    (folder / "folder.mp4").mkdir()
    (folder / "broken.mp4").symlink_to("nowhere")
    (folder / "circle.mp4").symlink_to("circle.mp4")
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.mark.parametrize(
    ("video", "says", "hint"),
    [
        ("missing.mp4", "missing.mp4: no such file", None),
        ("folder.mp4", "is a folder", "malmm batch"),
        ("empty.mp4", "empty", None),
        ("text.mp4", "not a video", None),
        ("cut.mp4", "moov", "interrupted"),
        ("sound.wav", "audio only", None),
        ("cover.mp3", "has only a cover image", None),
        ("list.mp4", "playlist", None),
        ("broken.mp4", "no such file", None),
        ("circle.mp4", "no such file", None),
        ("pipe.mp4", "not a regular file", None),
        ("/dev/null", "not a regular file", None),
        ("new\nline.mp4", "no such file", None),
        ("\x1b[31mred.mp4", "no such file", None),
        (os.fsdecode(b"caf\xe9.mp4"), "no such file", None),
        ("x" * 5000, "no such file", None),
        ("-", "standard input", "save the video"),
        ("https://example.org/a.mp4", "URLs are not supported", "download"),
    ],
)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_videos(refused, tmp_path, clip, video, says, hint):
    write_bad_files(tmp_path, clip)
    for command in (["caption", video], ["ask", video, "what moves?"]):
        told = refused(*command, *FAST, code=2, says=says, hint=hint)
        assert told.replace("\n", "").isprintable(), "a terminal would obey this"
    refused("frames", video, code=2, says=says, hint=hint)


def test_a_video_damaged_in_the_middle_gives_what_is_there_and_one_warning(malmm, tmp_path):
    content = bytearray(SAMPLE.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    video = tmp_path / "damaged.mp4"
    video.write_bytes(content)
    done = malmm("caption", video, "--model", "tiny", "--frames", "40", "--max-new-tokens", "2")
    assert done.code == 0
    assert done.out.strip()
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "damaged" in warnings[0]
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--frames=0"], "--frames 0"),
        (["--frames=-3"], "--frames -3"),
        (["--frames=many"], "--frames many: must be a whole number"),
        (["--frames=4", "--fps=1"], "exclude each other"),
        (["--fps=0"], "--fps 0"),
        (["--fps=nan"], "--fps nan"),
        (["--fps=inf"], "--fps inf"),
        (["--max-frames=3"], "--max-frames needs --fps"),
        (["--fps=1", "--max-frames=0"], "--max-frames 0"),
        (["--from=noon"], "--from noon"),
        (["--from=-5"], "--from -5"),
        (["--from=1e3"], "--from 1e3"),
        (["--from=1:75"], "--from 1:75"),
        (["--to=0"], "--to 0"),
        (["--from=1:00", "--to=30"], "--to 30"),
        (["--from=99:00:00"], "--from 99:00:00 is past the end"),
        (["--from=1h"], "--from 1h is past the end of the video, at 60.00 s"),
        (["--from=0:10", "--to=5s"], "--to 5s must come after --from 0:10"),
        (["--from=75"], "--from 75 s is past the end"),
        (["--from=" + "9" * 400 + ":00:00"], "past the end"),
        (["--decoder=vlc"], "'vlc'"),
        (["--format=docx"], "docx"),
        (["--bogus"], "--bogus"),
    ],
)
def test_options_of_all_commands(refused, options, says):
    refused("caption", SAMPLE, "--model=tiny", "-q", *options, code=2, says=says)
    refused("frames", SAMPLE, "-q", *options, code=2, says=says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--policy=lifo"], "'lifo'"),
        (["--banks=left"], "'left'"),
        (["--device=abacus"], "'abacus'"),
        (["--dtype=int8"], "'int8'"),
        (["--memory=-1"], "--memory -1"),
        (["--max-new-tokens=0"], "--max-new-tokens 0"),
        (["--beams=0"], "--beams 0"),
        (["--temperature=0"], "--temperature 0"),
        (["--temperature=inf"], "--temperature inf"),
        (["--top-p=1.5"], "--top-p 1.5"),
        (["--length-penalty=nan"], "--length-penalty nan"),
        (["--repetition-penalty=inf"], "--repetition-penalty inf"),
        (["--seed=-1"], "--seed -1"),
        (["--seed=99999999999999999999"], "--seed 9999"),
        (["--json", "--format=srt"], "exclude each other"),
        (["--prompt="], "the prompt is empty"),
        (["--prompt= \n"], "the prompt is empty"),
        (["--prompt=Q: {}"], "has {}, but a caption has no question to put there"),
        (["--prompt=" + os.fsdecode(b"\xff")], "is not valid in this system"),
    ],
)
def test_options_of_models(refused, options, says):
    refused("caption", SAMPLE, "--model=tiny", "-q", *options, code=2, says=says)


@pytest.mark.parametrize(
    "option",
    ["policy", "merge", "mean", "banks", "decoder", "device", "dtype", "quantize", "format"],
)
def test_an_unknown_value_is_answered_by_the_known_ones(refused, option):
    known = {
        "policy": "mbc, fifo, average, last, random, uniform",
        "merge": "token, frame",
        "mean": "weighted, plain",
        "banks": "both, visual, query, none",
        "decoder": "auto, pyav, nvdec, ffmpeg, decord",
        "device": "cpu",
        "dtype": "float32, bfloat16, float16",
        "quantize": "8bit, 4bit",
        "format": "text, json, jsonl, srt, vtt, tsv",
    }
    refused("caption", SAMPLE, *FAST, f"--{option}=x", code=2, says="'x'", hint=known[option])


def test_a_device_that_is_not_here(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused("caption", SAMPLE, *FAST, "--device=cuda", code=2, says="'cuda' is not available")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["caption"], "VIDEO"),
        (["ask", "a.mp4"], "QUESTION"),
        (["frobnicate"], "frobnicate"),
        (["ask", SAMPLE, "", *FAST], "a question is empty"),
        (["ask", SAMPLE, "what?", " ", *FAST], "a question is empty"),
        (["ask", SAMPLE, os.fsdecode(b"\xff?"), *FAST], "is not valid in this system"),
        (["ask", SAMPLE, "what?", *FAST, "--prompt", "Answer:"], "no {} where the question goes"),
        (["caption", SAMPLE, SAMPLE, *FAST, "--format", "srt"], "subtitles need exactly one video"),
        (["frames", SAMPLE, "--format", "srt"], "not srt"),
    ],
)
def test_arguments(refused, arguments, says):
    refused(*arguments, code=2, says=says)


@pytest.mark.parametrize("arguments", [["caption"], ["bench"], ["models", "shred"]])
def test_wrong_use_points_to_the_help(refused, arguments):
    refused(*arguments, code=2, says="", hint=f"`malmm {arguments[0]} -h`")


@pytest.mark.parametrize("arguments", [["nope.mp4"], [SAMPLE, "--frames=0"], [SAMPLE, "--json=x"]])
def test_nothing_is_loaded_before_the_rest_is_found_good(refused, monkeypatch, arguments):
    def load(*_, **__):
        raise AssertionError("a model, perhaps of 15 GB, was fetched and loaded for nothing")

    monkeypatch.setattr(loading, "load", load)
    refused("caption", *arguments, code=2, says="")
    refused("ask", SAMPLE, "", code=2, says="a question is empty")


def test_more_tokens_than_the_language_model_reads(refused, write_model):
    folder = write_model("vicuna", context=64)
    options = ["--model", folder, "--memory=0", "--frames=10", "-q"]
    refused(
        *("caption", SAMPLE, *options),
        code=1,
        says="80 visual tokens",
        hint="use a memory",
    )


def test_too_little_memory_is_no_traceback(refused, monkeypatch):
    def generate(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")

    monkeypatch.setattr(InstructBlip, "generate", generate)
    refused("caption", SAMPLE, *FAST, code=1, says="not enough memory", hint="beams")


# --- where results go


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        ("here.txt", 2, "here.txt: exists"),
        (".", 2, "is a folder"),
        ("no/such.txt", 2, "no such folder: no"),
        ("here.txt/below.txt", 2, "no such folder: here.txt"),
        ("x" * 300, 1, "cannot be written"),
    ],
)
@pytest.mark.parametrize("command", ["caption", "frames"])
def test_outputs(refused, tmp_path, command, output, code, says):
    suffix = {"caption": "", "frames": ".png"}[command]
    if output != ".":
        output, says = output.replace(".txt", suffix), says.replace(".txt", suffix)
        output += suffix if output.startswith("x") else ""
        (tmp_path / f"here{suffix}").write_text("precious")
    elif suffix:
        output = f"folder{suffix}"
        (tmp_path / output).mkdir()
    options = ["-q"] if command == "frames" else FAST
    refused(command, SAMPLE, *options, "-o", output, code=code, says=says)


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        ("here.jsonl", 2, "here.jsonl: line 1 is not a malmm batch result"),
        ("no/such.jsonl", 2, "no such folder: no"),
        ("here.jsonl/below.jsonl", 2, "no such folder: here.jsonl"),
        ("x" * 300 + ".jsonl", 1, "cannot be written"),
        ("", 2, "-o is empty"),
    ],
)
def test_outputs_of_a_batch(refused, tmp_path, output, code, says):
    (tmp_path / "here.jsonl").write_text("precious\n")
    refused("batch", SAMPLE, *FAST, "-o", output, code=code, says=says)


def test_an_output_folder_that_may_not_be_written_to(refused, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    refused("caption", SAMPLE, *FAST, "-o", "out.txt", code=1, says="is not writable")


def test_a_full_disk(refused, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(os, "link", full)
    refused("remember", SAMPLE, *FAST[:4], "-q", "-o", "x.memory", code=1, says="No space left")
    refused("frames", SAMPLE, "-q", "-o", "out.png", code=1, says="No space left")
    refused("frames", SAMPLE, "-q", "--dump", "out", code=1, says="No space left")


# --- models


def test_an_unknown_model_is_answered_by_the_near_and_the_known(refused):
    options = ["--model", "vicuna7b", "-q"]
    hint = "did you mean vicuna-7b? known: qwen3-vl-2b, qwen3-vl-4b, "
    refused("caption", SAMPLE, *options, code=2, says="unknown model 'vicuna7b'", hint=hint)


@pytest.mark.parametrize("name", ["", "./nowhere", "~nobody/model", "a/b/c", "a/b--c", "x" * 300])
def test_a_name_that_no_model_can_have(refused, name):
    refused("caption", SAMPLE, "--model", name, "-q", code=2, says="unknown model")


def test_a_model_that_is_a_file(refused):
    refused("caption", SAMPLE, "--model", SAMPLE, "-q", code=2, says="a model is a folder")


@pytest.mark.parametrize("offline", [[], ["--offline"]])
def test_a_hub_model_that_is_not_here(refused, offline):
    options = ["--model", "nobody/nothing", "-q", *offline]
    refused(
        "caption",
        SAMPLE,
        *options,
        code=1,
        says="nobody/nothing",
        hint="models pull nobody/nothing",
    )


def break_config(folder):
    (folder / "config.json").unlink()


def break_json(folder):
    (folder / "config.json").write_text("{")


def break_type(folder):
    text = (folder / "config.json").read_text()
    assert '"model_type": "instructblip"' in text
    (folder / "config.json").write_text(text.replace('type": "instructblip"', 'type": "llava"'))


def break_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()


def break_instruction_tokenizer(folder):
    shutil.rmtree(folder / "qformer_tokenizer")


def break_shard(folder):
    next(folder.glob("*-00002-*")).unlink()


def break_file(folder):
    path = next(folder.glob("*-00002-*"))
    path.write_bytes(path.read_bytes()[:1000])


def break_tensors(folder, change):
    """Change the tensors of whichever shard has the query tokens."""
    from safetensors.torch import load_file, save_file

    for path in folder.glob("*.safetensors"):
        state = load_file(path)
        if "query_tokens" in state:
            change(state)
            save_file(state, path)


def break_shape(folder):
    break_tensors(folder, lambda state: state.update(query_tokens=state["query_tokens"][:, :3]))


def break_names(folder):
    break_tensors(folder, lambda state: state.update(surprise=state["query_tokens"].clone()))


def lose_tensor(folder):
    break_tensors(folder, lambda state: state.pop("query_tokens"))


def round_numbers(folder):
    break_tensors(folder, lambda state: state.update(query_tokens=state["query_tokens"].int()))


def write(name, content):
    """A damage: the file is another."""

    def damage(folder):
        (folder / name).write_bytes(content)

    return damage


INDEX = "model.safetensors.index.json"


def reconfigure(part, **fields):
    def damage(folder):
        content = json.loads((folder / "config.json").read_text())
        content[part] |= fields
        (folder / "config.json").write_text(json.dumps(content))

    return damage


def point_outside(folder):
    """The index names a file of weights, whole and right, that lies elsewhere."""
    shard = next(folder.glob("*-00002-*"))
    shutil.move(shard, folder.parent / shard.name)
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace(shard.name, f"../{shard.name}"))


def point_far_outside(folder):
    shard = next(folder.glob("*-00002-*"))
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace(shard.name, str(shard)))


def pickle_weights(folder):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")


@pytest.fixture(scope="module")
def sharded(write_model):
    return write_model("vicuna", max_shard_size="1MB")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (break_tokenizer, "tokenizer cannot be read: none of tokenizer.json"),
        (break_instruction_tokenizer, "qformer_tokenizer: the tokenizer cannot be read"),
        (break_shape, "wrong shape: query_tokens is (1, 3, 96), not (1, 8, 96)"),
        (break_names, "unexpected surprise"),
        (lose_tensor, "missing query_tokens"),
        (reconfigure("qformer_config", hidden_size="big"), "field 'hidden_size': "),
        (reconfigure("vision_config", hidden_size=10**7), "wrong shape: "),
        (write("preprocessor_config.json", b'{"image_std": [0, 0, 0]}'), "three numbers"),
    ],
)
def test_broken_model_folders(refused, sharded, tmp_path, damage, says):
    folder = shutil.copytree(sharded, tmp_path / "model")
    damage(folder)
    refused("caption", SAMPLE, "--model", folder, "-q", code=1, says=says, hint="hint: ")


@pytest.mark.parametrize(
    ("damage", "says", "hint"),
    [
        (break_config, "config.json is missing", "published model"),
        (break_json, "config.json: cannot be read: not valid JSON", "copy the folder again"),
        (
            write("config.json", b""),
            "config.json: cannot be read: the file is empty",
            "copy the folder again",
        ),
        (
            write("config.json", b"[" * 10**5),
            "cannot be read: not valid JSON",
            "copy the folder again",
        ),
        (
            write("config.json", b"\xff\xfe"),
            "cannot be read: not valid UTF-8",
            "copy the folder again",
        ),
        (
            write("config.json", b"[]"),
            "config.json: does not hold a JSON object",
            "copy the folder again",
        ),
        (write("config.json", b"{}"), "a model of no type", "known type"),
        (break_type, "'llava'", "known type"),
        (break_shard, "weights are missing: model-00002-of-", "copy"),
        (break_file, "model-00002-of-", "copy the folder again"),
        (write(INDEX, b"xx"), f"{INDEX}: cannot be read: not valid JSON", "copy the folder again"),
        (write(INDEX, b"[1]"), f"{INDEX}: does not hold a JSON object", "copy the folder again"),
        (write(INDEX, b"{}"), f"{INDEX}: has no usable weight_map", "copy the folder again"),
        (
            write(INDEX, b'{"weight_map": {}}'),
            f"{INDEX}: has no usable weight_map",
            "copy the folder again",
        ),
        (
            write(INDEX, b'{"weight_map": {"a": 3}}'),
            f"{INDEX}: has no usable weight_map",
            "copy the folder again",
        ),
        (write(INDEX, b'{"weight_map": {"a": "\\u0000"}}'), "not a weights file", "itself"),
        (point_outside, "'../model-00002-of-", "itself"),
        (point_far_outside, "not a weights file in this folder", "itself"),
        (pickle_weights, "only pickles (pytorch_model.bin)", "safetensors"),
        (round_numbers, "query_tokens as I32", "float16"),
    ],
)
def test_broken_model_folders_are_told_before_they_are_loaded(
    refused, sharded, tmp_path, damage, says, hint
):
    folder = shutil.copytree(sharded, tmp_path / "model")
    damage(folder)
    for command in (["caption", SAMPLE, "-q", "--model"], ["models", "info"], ["models", "pull"]):
        refused(*command, folder, code=1, says=says, hint=hint)


def test_a_folder_in_several_files_is_a_model_like_any_other(malmm, sharded, vicuna_folder):
    assert len(list(sharded.glob("*.safetensors"))) > 1
    whole = malmm("caption", SAMPLE, *FAST, "--model", vicuna_folder)
    assert malmm("caption", SAMPLE, *FAST, "--model", sharded) == whole
    assert whole.code == 0


def test_the_video_is_never_overwritten(refused, tmp_path):
    video = shutil.copy(SAMPLE, tmp_path / "mine.mp4")
    before = Path(video).read_bytes()
    for option in ([], ["--overwrite"]):
        refused("caption", video, *FAST, "-o", video, *option, code=2, says="is the input file")
    assert Path(video).read_bytes() == before


def test_numbers_that_are_none_are_no_answer(refused, sharded, tmp_path):
    """Weights that overflow say so instead of saying nothing."""
    folder = shutil.copytree(sharded, tmp_path / "model")
    for shard in folder.glob("*.safetensors"):
        state = load_file(shard)
        if "query_tokens" in state:
            state["query_tokens"] = state["query_tokens"] * float("nan")
            save_file(state, shard, metadata={"format": "pt"})
    refused("caption", SAMPLE, *FAST[2:], f"--model={folder}", code=1, says="NaN")


def test_an_output_folder_that_may_not_be_written(refused, monkeypatch, tmp_path):
    """As for anyone but root."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr("malmm_cli.batch.paths.FileLock.acquire", refuse)
    says = "out/results.jsonl: cannot be locked: Permission denied"
    refused(
        "batch", SAMPLE, "-o", "out/", "-m", "tiny", "-q", code=1, says=says, hint="choose another"
    )
    monkeypatch.setattr(Path, "mkdir", refuse)
    says = "cannot write world: Permission denied"
    refused("synth", "world", "-q", code=1, says=says, hint="or choose another folder")
