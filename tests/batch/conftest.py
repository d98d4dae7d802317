"""What tests of batches share."""

from pathlib import Path

import pytest

from malmm_cli.batch.paths import OutputPaths


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return OutputPaths(Path("out.jsonl"))
