"""Memory files on the command line: they bring their model, and another one is refused."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import FAST, SAMPLE
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from malmm_cli import cli
from malmm_cli.pipeline import loading
from malmm_cli.pipeline.feature_files import checksum
from malmm_cli.pipeline.memory_header import model_of

REPOSITORY = Path(__file__).parents[2]
OLD = REPOSITORY / "tests" / "golden" / "version-1.malmm"
FEW = ("--beams", "2", "--max-new-tokens", "4", "-q")


@pytest.fixture
def remember(malmm, tmp_path):
    """Writes a memory file with a model; returns its path."""

    def write(model, name="clip.memory"):
        path = tmp_path / name
        few = ("--frames", "6", "--memory", "2", "-q")
        done = malmm("remember", SAMPLE, "-o", path, "--model", model, *few)
        assert done.code == 0, done.err
        return path

    return write


@pytest.fixture
def loaded(monkeypatch):
    """The names of the models that are loaded."""
    names, load = [], loading.load

    def recorded(name, **options):
        names.append(name)
        return load(name, **options)

    monkeypatch.setattr(loading, "load", recorded)
    return names


def test_a_file_brings_its_model(malmm, remember, loaded):
    path = remember("tiny")
    asked = malmm("ask", path, "what moves?", *FEW, "--json")
    assert (asked.code, asked.err) == (0, "")
    assert json.loads(asked.out)["model"] == "tiny"
    assert malmm("caption", path, *FEW).code == 0
    assert loaded == ["tiny"] * 3
    assert malmm("ask", path, "what moves?", *FEW, "--model", "tiny", "--json").code == 0


def test_a_file_of_version_1_brings_its_model_whatever_it_is_called(malmm, tmp_path):
    shutil.copy(OLD, tmp_path / "old.mp4")
    done = malmm("ask", tmp_path / "old.mp4", "what comes first?", "-q")
    assert (done.code, done.out) == (0, "black moon\n")


def test_a_folder_is_found_again_from_anywhere(malmm, remember, vicuna_folder, monkeypatch):
    monkeypatch.chdir(vicuna_folder.parent)
    path = remember(vicuna_folder.name)
    assert model_of(path) == str(vicuna_folder)
    monkeypatch.chdir("/")
    assert json.loads(malmm("ask", path, "what?", *FEW, "--json").out)["model"] == str(
        vicuna_folder
    )
    monkeypatch.chdir(vicuna_folder)
    assert malmm("ask", path, "what?", *FEW, "--model", ".").code == 0, "the same folder"


def test_a_folder_that_is_gone(malmm, refused, remember, vicuna_folder, write_model, tmp_path):
    folder, moved = tmp_path / "model", tmp_path / "moved"
    shutil.copytree(vicuna_folder, folder)
    path = remember(folder)
    folder.rename(moved)
    says = f"{path}: was made with the model in {folder}, which does not exist"
    refused("ask", path, "what?", *FEW, code=2, says=says, hint="--model FOLDER")
    assert malmm("ask", path, "what?", *FEW, "--model", moved).code == 0
    says = "was made by another model"
    other = write_model("flan-t5", seed=1)
    refused("ask", path, "what?", *FEW, "--model", other, code=2, says=says)
    says = f"was made with {folder}, not with tiny"
    refused("ask", path, "what?", *FEW, "--model", "tiny", code=2, says=says)


@pytest.mark.parametrize("given", ["vicuna-7b", "Salesforce/instructblip-flan-t5-xl", "folder"])
def test_another_model_is_refused(refused, remember, loaded, vicuna_folder, monkeypatch, given):
    path = remember("tiny")
    loaded.clear()
    given = str(vicuna_folder) if given == "folder" else given
    says = f"error: {path}: was made with tiny, not with {given}"
    refused("ask", path, "what?", *FEW, "-m", given, code=2, says=says, hint="leave out --model")
    refused("caption", path, *FEW, "--model", given, code=2, says=says)
    refused("caption", path, SAMPLE, *FEW, "--model", given, code=2, says=says)
    monkeypatch.setenv("MALMM_MODEL", given)
    refused("ask", path, "what?", *FEW, code=2, says=says, hint="MALMM_MODEL is set")
    assert loaded == []


def test_a_short_name_and_its_repository_are_the_same(malmm, remember, monkeypatch, tmp_path):
    """What is not here cannot be loaded, but it is not another model."""
    path = remember("tiny")
    with safe_open(path, framework="pt") as file:
        known = file.metadata()
    told = known["about"].replace('"tiny"', '"flan-t5-xl"')
    tensors = load_file(path)
    crc = checksum(*(tensors[name] for name in sorted(tensors)), text=told)
    save_file(tensors, path, known | {"about": told, "crc32": crc})
    assert model_of(path) == "flan-t5-xl"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    done = malmm("ask", path, "what?", *FEW, "-m", "Salesforce/instructblip-flan-t5-xl")
    assert "was made with" not in done.err
    assert "models pull" in done.err


def test_it_is_refused_before_torch_is_imported(remember):
    path = remember("tiny")
    code = (
        "import sys; from malmm_cli.cli import run; "
        f"code = run(['ask', {str(path)!r}, 'what?', '--model', 'vicuna-7b']); "
        "print(code, *{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout == "2\n"
    assert done.stderr.splitlines()[0] == (f"error: {path}: was made with tiny, not with vicuna-7b")


def test_a_default_from_a_file_is_no_choice(malmm, remember, loaded, monkeypatch):
    """`MALMM_MODEL` and `--model` choose; what a configuration says is only the default."""
    path = remember("tiny")
    loaded.clear()
    default = {"ask": {"model": "vicuna-7b"}}
    monkeypatch.setitem(cli.app.info.context_settings, "default_map", default)
    assert malmm("ask", path, "what?", *FEW).code == 0
    assert loaded == ["tiny"]
    assert "was made with tiny, not with flan-t5-xl" in (
        malmm("ask", path, "what?", *FEW, "-m", "flan-t5-xl").err
    )


def test_files_beside_videos_and_beside_each_other(malmm, refused, remember, vicuna_folder, clip):
    one, other = remember("tiny"), remember(vicuna_folder, "other.memory")
    done = malmm("caption", one, clip, *FAST[2:], "--format=jsonl", "--frames=4")
    assert done.code == 2, "--frames is fixed for a memory file"
    done = malmm("caption", one, clip, *FEW, "--format=jsonl")
    assert {json.loads(line)["model"] for line in done.out.splitlines()} == {"tiny"}
    says = f"{one} was made with tiny, {other} with {vicuna_folder}"
    refused("caption", one, other, *FEW, code=2, says=says)


def test_a_damaged_file_is_told_before_a_model_is_loaded(malmm, loaded, remember):
    path = remember("tiny")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(rb'"about":"{\"', rb'"about":"[\"'))
    loaded.clear()
    done = malmm("ask", path, "what?", *FEW, "--json")
    assert (done.code, loaded) == (2, [])
    assert "is a damaged memory file" in done.err
    assert json.loads(done.out)["error"]["kind"] == "BrokenMemory"
    path.write_bytes(raw.replace(b"malmm-memory/3", b"malmm-memory/4"))
    assert "is a memory file of version 4" in malmm("ask", path, "what?", *FEW).err
    assert loaded == []


def test_help_and_pages_know_one_suffix(malmm):
    pages = [*(REPOSITORY / "docs").glob("*.md"), REPOSITORY / "README.md"]
    texts = [page.read_text("utf-8") for page in pages]
    texts += [malmm(command, "--help").out for command in ("ask", "caption", "remember")]
    assert any("lecture.memory" in text for text in texts)
    assert not [text for text in texts if re.search(r"\w\.malmm\b(?!`)", text)]


def test_a_file_says_which_model_in_its_metadata(remember):
    with safe_open(remember("tiny"), framework="pt") as file:
        assert json.loads(file.metadata()["about"])["model"] == "tiny"


def test_a_batch_of_memory_files_uses_their_model(malmm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        done = malmm("remember", SAMPLE, *FAST[:4], "-q", "-o", f"{name}.memory")
        assert done.code == 0
    files = ("a.memory", "b.memory")
    assert malmm("batch", *files, "-q", "-o", "x.jsonl", *FAST[4:]).code == 0
    lines = map(json.loads, Path("x.jsonl").read_text().splitlines())
    assert [line["model"] for line in lines] == ["tiny", "tiny"]
    shutil.copy(SAMPLE, "a.mp4")
    how = ("--offline", "-q", "-o", "y.jsonl")
    assert "vicuna-7b" in malmm("batch", *files, "a.mp4", *how).err
    assert "vicuna-7b" in malmm("batch", *files, "-m", "vicuna-7b", *how).err
