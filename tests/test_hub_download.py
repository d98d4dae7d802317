"""The real client of the Hub, in processes of its own, against a server on loopback."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hub_models import FLAN_T5, NEVER, SMALL, VICUNA, publish
from hub_server import METADATA, HubServer

from malmm_cli.hub.known import KNOWN

WEIGHTS = "model.safetensors"
TINY = Path(__file__).parents[1] / "malmm_cli" / "assets" / "tiny"
PROGRAM = """
import os, shutil, sys
import malmm_cli.hub.download
from malmm_cli import cli, hub
malmm_cli.hub.download.WAITS = (0.05, 0.05, 0.05)
{}
sys.exit(cli.run(sys.argv[1:]))
"""
DOWNLOADING = "someone/small: downloading 2.6 MB from someone/small, revision "


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    for repository in (VICUNA, FLAN_T5):
        publish(folder, repository)
    shutil.copytree(TINY, folder / SMALL)
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
            cwd=Path(__file__).parents[1],
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


# --- a first use and those after it


def run_on_folder(folder, clip, capsys):
    from malmm_cli import cli

    capsys.readouterr()
    assert cli.run(["caption", str(clip), *OPTIONS, "--model", str(folder)]) == 0
    return json.loads(capsys.readouterr().out)


OPTIONS = ("--frames", "4", "--max-new-tokens", "6", "--beams", "2", "--json", "--device", "cpu")


@pytest.mark.parametrize(("name", "repository"), [(VICUNA, VICUNA), ("flan-t5-xl", FLAN_T5)])
def test_a_first_use(client, hub, root, clip, capsys, name, repository):
    command = ("caption", clip, *OPTIONS, "--model", name)
    out, err = client(*command)
    result = json.loads(out)
    known = next(known for known in KNOWN.values() if known.repository == repository)

    first, *rest = err.splitlines()
    assert first.startswith(f"{name}: downloading ")
    assert first.endswith(
        f" from {repository}, revision {known.revision[:7]}; licence: {known.licence}"
    )
    assert rest == [f"{name} on cpu, float32"]
    assert result["revision"] == known.revision

    files = {
        path.relative_to(root / repository).as_posix()
        for path in (root / repository).rglob("*")
        if path.is_file()
    }
    assert hub.sent() == dict.fromkeys(files - set(NEVER), 1)
    assert sum(file.startswith("model-") for file in files) == 3

    from_folder = run_on_folder(root / repository, clip, capsys)
    differ = {"model", "revision", "seconds"}
    assert {k: v for k, v in result.items() if k not in differ} == {
        k: v for k, v in from_folder.items() if k not in differ
    }
    assert result["text"]

    hub.requests.clear()
    offline = ("--offline",) if name == VICUNA else ()
    again, err = client(*command, *offline)
    assert json.loads(again)["candidates"] == result["candidates"]
    assert err.splitlines() == [f"{name} on cpu, float32"]
    assert not hub.requests, "a second use asked the network"


def test_main_is_taken_once(client, hub, root):
    out, err = client.pull()
    commit = hub.commit(SMALL)
    assert DOWNLOADING + commit[:7] + " (now its main, and recorded)" in err
    assert out.strip().endswith(commit)
    same(out.strip(), root / SMALL)
    hub.pins[SMALL] = "b" * 40  # main moves on
    hub.requests.clear()
    out, err = client("models", "info", SMALL, "--json")
    assert (json.loads(out)["here"], json.loads(out)["revision"]) == (True, commit)
    assert client("models", "pull", SMALL, "--offline")[0].strip().endswith(commit)
    assert not hub.requests


def test_main_stays_what_it_was_when_the_download_began(client, hub):
    hub.fail(WEIGHTS, "error")
    client.pull(code=1)
    hub.heal()
    recorded, hub.pins[SMALL] = hub.commit(SMALL), "b" * 40
    _, hint = client.refused("models", "pull", SMALL)
    assert recorded in [r.path.rsplit("/", 1)[1] for r in hub.requests]
    assert "folder" in hint


def test_what_other_programs_fetched_is_used(client, hub):
    fetch = f"import huggingface_hub as h; h.snapshot_download({SMALL!r}); sys.exit()"
    client(before=fetch, HF_HUB_DISABLE_PROGRESS_BARS="1")
    hub.requests.clear()
    out, err = client("models", "pull", SMALL, "--offline")
    assert (err, hub.requests) == ("", [])
    assert out.strip().endswith(hub.commit(SMALL))


def test_other_programs_use_what_was_fetched(client, hub):
    folder = client.pull()[0].strip()
    find = (
        "import huggingface_hub as h; print(h.snapshot_download({!r}, revision={!r})); sys.exit()"
    )
    fetched = hub.sent()
    out, _ = client(before=find.format(SMALL, hub.commit(SMALL)), HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert (out.strip(), hub.sent()) == (folder, fetched)


# --- a broken line


def test_a_cut_is_mended_at_once(client, hub, root):
    hub.fail(WEIGHTS, "cut", after=1_000_000, times=2)
    out, err = client.pull()
    assert err.count("the line to the Hub broke") == err.count("trying again in") == 2
    assert content(hub) == ["bytes=0-", "bytes=1000000-", "bytes=2000000-"]
    same(out.strip(), root / SMALL)


def test_a_cut_for_good_is_resumed_by_the_next_run(client, hub, root):
    hub.fail(WEIGHTS, "cut", after=1_000_000, times=1)
    hub.fail(WEIGHTS, "error")
    error, hint = client.refused("models", "pull", SMALL)
    assert "someone/small: the Hub answers with error 500" in error
    assert "what has arrived is kept" in hint
    assert content(hub) == ["bytes=0-"] + ["bytes=1000000-"] * 3
    hub.heal()
    hub.requests.clear()
    out, err = client.pull()
    assert content(hub) == ["bytes=1000000-"]
    assert set(hub.sent().values()) == {1}
    assert "downloading 1.6 MB of 2.6 MB, the rest is here," in err
    same(out.strip(), root / SMALL)


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_is_resumed(client, hub, root, end):
    hub.fail(WEIGHTS, "slow", seconds=0.02)
    process = client.start("models", "pull", SMALL)
    blobs = client.storage / "blobs"
    hub.wait_for(lambda _: any(p.stat().st_size > 10**5 for p in blobs.glob("*.incomplete")))
    process.send_signal(end)
    _, err = process.communicate(timeout=30)
    if end == signal.SIGINT:
        assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")
        assert "Traceback" not in err
    (part,) = blobs.glob("*.incomplete")
    assert part.read_bytes() == (TINY / WEIGHTS).read_bytes()[: (size := part.stat().st_size)]
    hub.heal()
    hub.requests.clear()
    same(client.pull()[0].strip(), root / SMALL)
    assert content(hub) == [f"bytes={size}-"]


def test_two_at_once_share_one_download(client, hub, root):
    hub.fail(WEIGHTS, "slow", seconds=0.02, times=1)
    first = client.start("models", "pull", SMALL)
    hub.wait_for(lambda server: content(server))
    second = client.start("models", "pull", SMALL)
    outputs = [process.communicate(timeout=30) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outputs[0][0] == outputs[1][0]
    assert outputs[1][1] == "someone/small: another process is downloading it; waiting\n"
    assert set(hub.sent().values()) == {1}
    same(outputs[0][0].strip(), root / SMALL)


# --- what else can go wrong


@pytest.mark.parametrize(
    ("file", "fault", "says", "next_step", "tries"),
    [
        (METADATA, "gated", "is given to those who have agreed to its terms", "hf auth login", 1),
        (METADATA, "unauthorised", "does not accept the token", "hf auth login", 1),
        (METADATA, "forbidden", "refuses access", "hf auth login", 1),
        (METADATA, "no revision", "does not have this revision", "newer version", 1),
        (METADATA, "limited", "wants fewer requests", "wait", 4),
        (METADATA, "error", "the Hub answers with error 500", "run it again", 4),
        (WEIGHTS, "gated", "is given to those who have agreed to its terms", "hf auth login", 1),
        (WEIGHTS, "no file", "does not have what it lists", "later", 1),
        (WEIGHTS, "limited", "wants fewer requests", "wait", 4),
    ],
)
def test_an_answer_that_is_a_refusal(client, hub, file, fault, says, next_step, tries):
    hub.fail(file, fault)
    error, hint = client.refused("models", "pull", SMALL)
    assert says in error
    assert SMALL in error
    assert next_step in hint
    asked = content(hub) or [r for r in hub.requests if r.path.startswith("/api/models/")]
    assert len(asked) == tries
    assert not list((client.storage / "snapshots").rglob("*.safetensors"))


def test_a_repository_that_is_not_there(client):
    error, hint = client.refused("models", "pull", "someone/nothing", code=2)
    assert error == "the Hub has no repository someone/nothing that you may see"
    assert hint.startswith("check the spelling")
    _, hint = client.refused("models", "pull", "Salesforce/instructblip-vicuna7b", code=2)
    assert hint.startswith(f"did you mean {VICUNA}? ")


def test_a_name_that_nothing_has(client, hub):
    _, hint = client.refused("models", "pull", "vicuna7b", code=2)
    assert hint.startswith("did you mean vicuna-7b? ")
    assert not hub.requests


def test_a_hub_that_does_not_answer(client, hub):
    hub.fail(METADATA, "silent", seconds=2)
    once = "malmm_cli.hub.download.WAITS = (0.05,)"
    error, hint = client.refused("models", "pull", SMALL, before=once, HF_HUB_ETAG_TIMEOUT="1")
    assert error == "someone/small: the Hub does not answer in time"
    assert "check the connection" in hint


def test_a_hub_that_cannot_be_reached(client, hub):
    address = hub.url.rsplit(":", 1)[0] + ":9"
    error, hint = client.refused("models", "pull", SMALL, HF_ENDPOINT=address)
    assert error.startswith("someone/small: the Hub cannot be reached: ")
    assert "--model tiny" in hint


def test_somebody_else_who_answers(client, hub):
    hub.fail(METADATA, "html")
    error, hint = client.refused("models", "pull", SMALL)
    assert error == "someone/small: what answers is not the Hub"
    assert "login page" in hint


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("flipped", "does not have the hash that the Hub gives"),
        ("short", "has 2554246 bytes, not 2554256"),
        ("long", "bytes, not 2554256"),
    ],
)
def test_a_file_that_is_another(client, hub, root, fault, says):
    hub.fail(WEIGHTS, fault)
    error, hint = client.refused("models", "pull", SMALL)
    assert error.startswith(f"someone/small: {WEIGHTS} ")
    assert says in error
    assert error.endswith("; it was deleted")
    assert "run it again" in hint
    assert not list(client.storage.rglob("*.incomplete"))
    assert not list((client.storage / "snapshots").rglob(WEIGHTS))
    hub.heal()
    same(client.pull()[0].strip(), root / SMALL)


def test_no_room_is_told_before_the_first_byte(client, hub):
    little = "shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6)"
    error, hint = client.refused("models", "pull", SMALL, before=little)
    assert "2.6 MB have to be downloaded" in error
    assert error.endswith("has room for 1.0 MB")
    assert "HF_HOME" in hint
    assert not hub.sent()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_no_room_in_the_middle(client, hub, root):
    from hub_server import Repository

    part = client.storage / "blobs" / (Repository(root / SMALL).hash(WEIGHTS) + ".incomplete")
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    error, hint = client.refused("models", "pull", SMALL)
    assert error == "someone/small cannot be stored: [Errno 28] No space left on device"
    assert hint.startswith("free some room")


def test_too_little_memory_is_told_before_the_first_byte(client, hub, clip):
    command = ("caption", clip, *OPTIONS, "--model", "vicuna-7b")
    error, hint = client.refused(*command, before="hub.machine_memory = lambda: 20 * 10**9")
    assert error == "vicuna-7b in float32 takes 31.7 GB of memory, and there are 20.0 GB"
    assert hint == "what would fit: --dtype bfloat16"
    assert not hub.sent()


def test_offline(client, hub):
    for options, environment in ((("--offline",), {}), ((), {"HF_HUB_OFFLINE": "1"})):
        error, hint = client.refused("models", "pull", SMALL, *options, **environment)
        assert "is not on this machine" in error
        assert "--model tiny" in hint
    assert not hub.requests


def test_half_a_model_is_none(client, hub, root):
    folder = Path(client("models", "pull", "flan-t5-xl")[0].strip())
    (gone,) = folder.glob("model-00002-*")
    gone.resolve().unlink()
    assert json.loads(client("models", "info", "flan-t5-xl", "--json")[0])["here"] is False
    error, _ = client.refused("models", "pull", "flan-t5-xl", "--offline")
    assert "or not all of it" in error
    hub.requests.clear()
    client("models", "pull", "flan-t5-xl")
    assert hub.sent() == {gone.name: 1}


def test_pull_mends_what_is_damaged(client, hub, root):
    folder = Path(client.pull()[0].strip())
    weights = folder / WEIGHTS
    weights.write_bytes(bytes(weights.stat().st_size))
    hub.requests.clear()
    client.pull()
    assert len(content(hub)) == sum(hub.sent().values()) == 1
    same(folder, root / SMALL)


def test_a_repository_of_pickles(client, hub, root, tmp_path):
    shutil.copytree(root / SMALL, other := tmp_path / "other" / "someone" / "pickled")
    (other / WEIGHTS).rename(other / "pytorch_model.bin")
    with HubServer(tmp_path / "other") as server:
        error, hint = client.refused("models", "pull", "someone/pickled", HF_ENDPOINT=server.url)
        assert not server.sent()
    assert "it lacks model*.safetensors" in error
    assert "can run code" in hint


def test_a_token_goes_to_the_hub_alone(client, hub):
    hub.fail(WEIGHTS, "cut", after=10**6, times=1)
    out, err = client.pull(HF_TOKEN="hf_secret")
    assert "hf_secret" not in out + err
    tokens = {r.host.split(":")[0]: r.token for r in hub.requests}
    assert tokens == {"127.0.0.1": "Bearer hf_secret", "localhost": None}
