"""What the tests of the command line share: models, videos, and a way to run commands."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.commands import WORDS, Done
from helpers.media_files import write_video

os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # no config file of whoever runs the tests
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Two seconds of video."""
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4")


@pytest.fixture(scope="session")
def write_model(tmp_path_factory) -> Callable[..., Path]:
    """Writes a random model of either language model's kind; options are those of `scratch`."""
    from malmm_cli.models.instructblip import random_init

    def write(language: str, context: int | None = None, **options) -> Path:
        folder = tmp_path_factory.mktemp("models") / language
        config = random_init.tiny_config(language)
        if context:
            config.text_config.max_position_embeddings = context
        random_init.write(folder, config, WORDS, **options)
        return folder

    return write


@pytest.fixture(scope="session")
def vicuna_folder(write_model) -> Path:
    return write_model("vicuna")


@pytest.fixture(scope="session")
def t5_folder(write_model) -> Path:
    return write_model("flan-t5")


@pytest.fixture(scope="session")
def load_once():
    """`malmm_cli.models.load`, which reads each folder once in all tests."""
    from malmm_cli.models import registry

    read, loaded = registry.load, {}

    def load(folder, **options):
        key = (folder, *options.items())
        if key not in loaded:
            loaded[key] = read(folder, **options)
        return loaded[key]

    return load


@pytest.fixture
def one_thread():
    """Small models are fastest on one thread, above all where other tests run beside."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def inline(monkeypatch) -> None:
    """A batch does its work, and decodes, in this process."""
    from malmm_cli import media
    from malmm_cli.batch import pool, worker

    def run(next_job, start, events, **_):
        work = None
        while job := next_job():
            work = work or start(0)
            events.started(job.video)
            yield job, work(job)

    def sandbox(_):
        return SimpleNamespace(probe=media.probe, read=media.read)

    monkeypatch.setattr(pool, "run", run)
    monkeypatch.setattr(worker, "Sandbox", sandbox)


@pytest.fixture
def malmm(monkeypatch, capsys, load_once, one_thread, inline) -> Callable[..., Done]:
    """Runs the command line in this process."""
    from malmm_cli import cli
    from malmm_cli.models import registry

    monkeypatch.setattr(registry, "load", load_once)
    for name in [
        name for name in os.environ if name.startswith("MALMM_") and name != "MALMM_GOLDEN"
    ]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path) -> Done:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(malmm, tmp_path, monkeypatch) -> Callable[..., str]:
    """Runs a command in an own folder; it must fail with one plain line, and write nothing."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path, code: int, says: str, hint: str | None = None) -> str:
        before = sorted(tmp_path.rglob("*"))
        done = malmm(*arguments)
        error, *hints = done.err.splitlines()
        assert error.startswith("error: "), done.err
        assert says in error
        assert all(line.startswith("hint: ") for line in hints), done.err
        assert len(hints) <= 1, done.err
        assert hint is None or hint in "".join(hints)
        assert done.out == ""
        assert done.code == code
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return done.err

    return run
