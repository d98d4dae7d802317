"""The real client of the Hub against a server on loopback: a first use, later ones, cuts."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from helpers import hub_client
from helpers.hub_client import WEIGHTS, content, same
from helpers.hub_models import FLAN_T5, NEVER, SMALL, VICUNA

from malmm_cli.hub.registry import KNOWN

root, hub, client = hub_client.root, hub_client.hub, hub_client.client

DOWNLOADING = "someone/small: downloading 2.5 MB from someone/small, revision "


# --- a first use and those after it


def run_on_folder(folder, clip, capsys):
    from malmm_cli import cli

    capsys.readouterr()
    assert cli.run(["caption", str(clip), *OPTIONS, "--model", str(folder)]) == 0
    return json.loads(capsys.readouterr().out)


OPTIONS = (
    "--dtype",
    "float32",
    "--frames",
    "4",
    "--max-new-tokens",
    "6",
    "--beams",
    "2",
    "--json",
    "--device",
    "cpu",
)


@pytest.mark.parametrize(("name", "repository"), [(VICUNA, VICUNA), ("flan-t5-xl", FLAN_T5)])
def test_a_first_use(client, hub, root, clip, capsys, name, repository):
    command = ("caption", clip, *OPTIONS, "--model", name)
    out, err = client(*command, before="machine.free_memory = lambda: 10**12")
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
    assert sum(file.startswith("model-") for file in files) > 1

    from_folder = run_on_folder(root / repository, clip, capsys)
    differ = {"model", "revision", "seconds"}
    assert {k: v for k, v in result.items() if k not in differ} == {
        k: v for k, v in from_folder.items() if k not in differ
    }
    assert result["text"]

    hub.requests.clear()
    if name == VICUNA:
        again, err = client(*command)
        assert json.loads(again)["candidates"] == result["candidates"]
        assert err.splitlines() == [f"{name} on cpu, float32"]
    client("models", "pull", name, "--offline")
    assert not hub.requests, "a second use asked the network"


def test_main_is_taken_once(client, hub, root):
    out, err = client.pull()
    commit = hub.commit(SMALL)
    assert DOWNLOADING + commit[:7] + " (its main branch now, and recorded)" in err
    assert out.strip().endswith(commit)
    same(out.strip(), root / SMALL)
    hub.pins[SMALL] = "b" * 40  # main moves on, and another program takes the new one
    shutil.copytree(out.strip(), Path(out.strip()).with_name("b" * 40))
    (client.storage / "refs" / "main").write_text("b" * 40)
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
    error, hint = client.refused("models", "pull", SMALL)
    assert recorded in [r.path.rsplit("/", 1)[1] for r in hub.requests]
    assert "this revision" in error
    assert str(client.storage / "refs" / "malmm") in hint
    (client.storage / "refs" / "malmm").unlink()  # as it says
    assert client.pull()[0].strip().endswith("b" * 40)


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
    hub.fail(WEIGHTS, "cut", after=500_000, times=5)  # more often than it would try in vain
    out, err = client.pull()
    assert err.count("connection to the Hub lost") == err.count("trying again in") == 5
    assert content(hub) == [f"bytes={start * 500_000}-" for start in range(6)]
    same(out.strip(), root / SMALL)


def test_a_cut_for_good_is_resumed_by_the_next_run(client, hub, root):
    hub.fail(WEIGHTS, "cut", after=1_000_000, times=1)
    hub.fail(WEIGHTS, "error")
    error, hint = client.refused("models", "pull", SMALL)
    assert "someone/small: the Hub returned HTTP 500" in error
    assert "downloaded data is kept" in hint
    assert content(hub) == ["bytes=0-"] + ["bytes=1000000-"] * 3
    hub.heal()
    hub.requests.clear()
    out, err = client.pull()
    assert content(hub) == ["bytes=1000000-"]
    assert set(hub.sent().values()) == {1}
    assert "downloading 1.5 MB of 2.5 MB, the rest is already downloaded," in err
    assert f"revision {hub.commit(SMALL)[:7]} (its main branch at the first download);" in err
    same(out.strip(), root / SMALL)


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
@pytest.mark.parametrize("end", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_is_resumed(client, hub, root, end):
    hub.fail(WEIGHTS, "slow", seconds=0.1)  # far longer than it takes to stop it
    process = client.start("models", "pull", SMALL)
    blobs = client.storage / "blobs"
    hub.wait_for(lambda _: any(p.stat().st_size > 10**5 for p in blobs.glob("*.incomplete")))
    process.send_signal(getattr(signal, end))
    _, err = process.communicate(timeout=30)
    if end == signal.SIGINT:
        assert (process.returncode, err.splitlines()[-1]) == (130, "interrupted")
        assert "Traceback" not in err
    (part,) = blobs.glob("*.incomplete")
    assert (
        part.read_bytes() == (root / SMALL / WEIGHTS).read_bytes()[: (size := part.stat().st_size)]
    )
    hub.heal()
    hub.requests.clear()
    same(client.pull()[0].strip(), root / SMALL)
    assert content(hub) == [f"bytes={size}-"]


def test_two_at_once_share_one_download(client, hub, root):
    hub.fail(WEIGHTS, "slow", seconds=0.02, times=1)
    first = client.start("models", "pull", SMALL)
    hub.wait_for(lambda server: content(server))
    use = f"hub.locate({SMALL!r}, events=Terminal()); sys.exit()"
    second = client.start(before=use)
    outputs = [process.communicate(timeout=30) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert outputs[1][1] == "someone/small: waiting for another process to finish downloading\n"
    assert set(hub.sent().values()) == {1}
    assert len([r for r in hub.requests if r.path.startswith("/api/models/")]) == 1
    same(outputs[0][0].strip(), root / SMALL)
