"""Which reference cases run: those of `$MALMM_GOLDEN`, whatever its files are called."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.reference import FOLDER, index

TESTS = sorted(Path(__file__).parent.glob("test_reference_malmm_*.py"))


def run(folder, *arguments):
    """Pytest on the reference tests with the cases of a folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, *map(str, TESTS)],
        env={**os.environ, "MALMM_GOLDEN": str(folder)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def renamed(tmp_path):
    """The set with every file under another name, in one folder; its index is description.json."""
    about, names = index(), {}
    for number, path in enumerate(sorted(p for p in FOLDER.rglob("*") if p.is_file())):
        names[path.relative_to(FOLDER).as_posix()] = f"{number:02}{path.suffix}"
        shutil.copy(path, tmp_path / f"{number:02}{path.suffix}")
    (tmp_path / names["index.json"]).unlink()
    about = {**about, "files": {names[name]: entry for name, entry in about["files"].items()}}
    for entry in about["files"].values():
        if entry.get("weights") in names:
            entry["weights"] = names[entry["weights"]]
    (tmp_path / "description.json").write_text(json.dumps(about))
    known = tmp_path / names["hf523_generation.json"]
    content = json.loads(known.read_text())
    content["results"] = {names[name]: result for name, result in content["results"].items()}
    known.write_text(json.dumps(content))
    return tmp_path


def test_renamed_files_are_the_same_cases(renamed):
    collected = [run(folder, "--collect-only") for folder in (FOLDER, renamed)]
    counts = [sum("::" in line for line in done.stdout.splitlines()) for done in collected]
    assert counts[0] == counts[1] > 100, collected[1].stdout
    done = run(renamed, "-x", "-k", "not encoder_decoders and not loss")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def test_an_empty_index_fails(tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({**index(), "files": {}}))
    done = run(tmp_path)
    assert done.returncode not in (0, 5)
    assert "holds no case of the form" in done.stdout


def test_a_folder_without_an_index_fails(tmp_path):
    done = run(tmp_path)
    assert done.returncode not in (0, 5)
    assert "holds none of index.json" in done.stdout
