"""Commands in processes of their own, whose Hub is a server on loopback: `hub` and `client`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.hub_models import FLAN_T5, SMALL, VICUNA, publish, publish_small
from helpers.hub_server import HubServer
from malmm_cli.hub.registry import KNOWN

WEIGHTS = "model.safetensors"
PROGRAM = """
import os, shutil, sys
import malmm_cli.hub.patience
from malmm_cli import cli, hub
from malmm_cli.cli.terminal import Terminal
from malmm_cli.processes import machine
malmm_cli.hub.patience.WAITS = (0.05, 0.05, 0.05)
{}
from malmm_cli.__main__ import main
main()
"""


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    for repository in (VICUNA, FLAN_T5):
        publish(folder, repository)
    publish_small(folder)
    return folder


@pytest.fixture
def hub(root):
    pins = {known.repository: known.revision for known in KNOWN.values() if known.revision}
    with HubServer(root, pins=pins) as server:
        yield server


class Client:
    """A machine of its own: an empty cache, and a Hub to ask."""

    def __init__(self, hub, home):
        self.hub, self.home = hub, home
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        self.environment = {
            **kept,
            "HOME": str(home),
            "USERPROFILE": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": hub.url,
            "NO_PROXY": "*",
            "OMP_NUM_THREADS": "1",
        }

    @property
    def storage(self):
        return self.home / "hf" / "hub" / "models--someone--small"

    def start(self, *arguments, before="", **environment):
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM.format(before), *map(str, arguments)],
            env=self.environment | environment,
            cwd=Path(__file__).parents[2],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments, code=0, **options):
        """Run a command; it must end with that code and without a traceback; its out and err."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        return out, err

    def refused(self, *arguments, code=1, **options):
        """The line of the error and that of the hint, which must be all after what was noted."""
        out, err = self(*arguments, code=code, **options)
        assert out == ""
        *notes, error, hint = err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        assert not [note for note in notes if note.startswith(("error", "hint"))]
        return error.removeprefix("error: "), hint.removeprefix("hint: ")

    def pull(self, **options):
        return self("models", "pull", SMALL, **options)


@pytest.fixture
def client(hub, tmp_path):
    return Client(hub, tmp_path)


def content(server, name=WEIGHTS):
    """From where on the file was asked for, each time."""
    paths = [r for r in server.requests if r.path.startswith("/content/")]
    return [r.range for r in paths if r.path.endswith("/" + name)]


def same(folder, other):
    names = [path.relative_to(other) for path in Path(other).rglob("*") if path.is_file()]
    assert names
    for name in names:
        assert (Path(folder) / name).read_bytes() == (Path(other) / name).read_bytes(), name
