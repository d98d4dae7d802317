"""The size of downloads on disk while other processes change them, and their removal."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from malmm_cli.hub.stored import remove, size_of


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_file_that_vanishes_while_sizes_are_added_up_counts_nothing(tmp_path, monkeypatch, call):
    for name in ("blobs/kept", "blobs/gone", "refs/main"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
    stat, calls = Path.stat, []

    def vanishing(path, **options):
        if path.name == "gone":
            calls.append(path)
            if len(calls) == call:
                path.unlink()
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert size_of(tmp_path) in (200, 300)  # whether it was still there when it was looked at


def test_links_and_folders_that_do_not_exist_have_no_size(tmp_path):
    (tmp_path / "file").write_bytes(bytes(100))
    (tmp_path / "link").symlink_to("file")
    assert size_of(tmp_path) == 100
    assert size_of(tmp_path / "none") == 0


def test_bytes_that_arrive_before_the_lock_is_had_are_freed_too(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / "models--someone--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "0123").write_bytes(bytes(1000))

    @contextmanager
    def lock(*_, **__):
        (blobs / "4567").write_bytes(bytes(500))  # of another process that held it until now
        yield

    monkeypatch.setattr("huggingface_hub.utils.WeakFileLock", lock)
    assert remove("someone/model") == 1500
    assert not blobs.parent.exists()
