"""What can go wrong with a download: one line, the next step, the exit code, nothing half-done."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import hub_client
from helpers.hub_client import WEIGHTS, content, same
from helpers.hub_models import SMALL, VICUNA
from helpers.hub_server import METADATA, HubServer, Repository

from malmm_cli.hub.errors import explained

root, hub, client = hub_client.root, hub_client.hub, hub_client.client


REFUSALS = {
    "gated": ("is gated: you must accept its terms first", "hf auth login", 1),
    "unauthorised": ("rejected the token", "hf auth login", 1),
    "forbidden": ("denied access", "hf auth login", 1),
    "no revision": ("does not have this revision", "refs", 1),
    "limited": ("rate limited by the Hub", "wait", 4),
    "error": ("the Hub returned HTTP 500", "run the command again", 4),
    "no file": ("a file listed on the Hub is missing", "later", 1),
}


@pytest.mark.parametrize(
    ("file", "faults"), [(METADATA, [*REFUSALS][:-1]), (WEIGHTS, ["gated", "limited", "no file"])]
)
def test_answers_that_are_refusals(client, hub, file, faults):
    for fault in faults:  # one after the other: a try too few or too many would meet the next
        hub.fail(file, fault, times=REFUSALS[fault][2])
    several = f"for _ in range({len(faults) - 1}): cli.run(sys.argv[1:])"
    out, err = client("models", "pull", SMALL, code=1, before=several, HF_TOKEN="hf_secret")
    told = [line for line in err.splitlines() if line.startswith(("error", "hint"))]
    assert err.count("trying again") == sum(REFUSALS[fault][2] - 1 for fault in faults)
    for fault, error, hint in zip(faults, told[::2], told[1::2], strict=True):
        says, next_step, _ = REFUSALS[fault]
        assert error.startswith("error: ")
        assert SMALL in error
        assert says in error
        assert hint.startswith("hint: ")
        assert next_step in hint
    assert out == ""
    assert not list((client.storage / "snapshots").rglob("*.safetensors"))


def test_a_repository_that_is_not_there(client):
    error, hint = client.refused("models", "pull", "someone/nothing", code=2)
    assert error == "repository someone/nothing not found on the Hub, or no access"
    assert hint.startswith("check the spelling")
    _, hint = client.refused("models", "pull", "Salesforce/instructblip-vicuna7b", code=2)
    assert hint.startswith(f"did you mean {VICUNA}? ")


@pytest.mark.parametrize("fault", ["no repository", "unauthorised"])
def test_a_stranger_is_not_told_what_there_is(client, hub, fault):
    """Without a token, the Hub answers so to a name that nothing has too."""
    hub.fail(METADATA, fault)
    error, hint = client.refused("models", "pull", SMALL, code=2)
    assert error == f"repository {SMALL} not found on the Hub, or no access"
    assert hint.startswith("check the spelling")
    assert "HF_TOKEN" not in hint


@pytest.mark.parametrize("name", ["vicuna-13b", "Salesforce/instructblip-vicuna-13b"])
def test_a_known_repository_that_is_gone(client, name):
    error, hint = client.refused("models", "pull", name)
    assert error == "the Hub has no public repository Salesforce/instructblip-vicuna-13b"
    assert "did you mean" not in hint
    assert "see `malmm models`" in hint


def test_a_pinned_revision_that_is_gone(client, hub):
    hub.fail(METADATA, "no revision")
    _, hint = client.refused("models", "pull", "flan-t5-xl")
    assert "newer version" in hint


def test_an_address_that_is_none(client, hub):
    error, hint = client.refused("models", "pull", SMALL, HF_ENDPOINT="nonsense")
    assert "the Hub is unreachable" in error
    assert "HF_ENDPOINT is nonsense" in hint


def test_a_link_that_is_missing_is_no_download(client, hub):
    folder = Path(client("models", "pull", "flan-t5-xl")[0].strip())
    next(folder.glob("model-00002-*")).unlink()
    hub.requests.clear()
    assert client("models", "pull", "flan-t5-xl")[1] == ""
    assert not hub.sent()


def test_a_model_of_another_kind_is_refused_before_its_weights_come(client, hub, root, tmp_path):
    shutil.copytree(root / SMALL, other := tmp_path / "other" / "someone" / "bert")
    (other / "config.json").write_text('{"model_type": "bert"}')
    with HubServer(tmp_path / "other") as server:
        for _ in range(2):
            error, hint = client.refused("models", "pull", "someone/bert", HF_ENDPOINT=server.url)
            assert error.startswith("someone/bert: a model of type 'bert' cannot be used")
            assert "`malmm models` lists" in hint
        assert WEIGHTS not in server.sent()


def test_a_repository_without_the_second_tokenizer(client, root, tmp_path):
    shutil.copytree(root / SMALL, other := tmp_path / "other" / "someone" / "half")
    (other / "qformer_tokenizer" / "tokenizer.json").rename(other / "qformer_tokenizer" / "x")
    with HubServer(tmp_path / "other") as server:
        error, hint = client.refused("models", "pull", "someone/half", HF_ENDPOINT=server.url)
    assert "missing qformer_tokenizer/tokenizer.json" in error
    assert "safetensors" not in hint


def test_a_name_that_nothing_has(client, hub):
    _, hint = client.refused("models", "pull", "vicuna7b", code=2)
    assert hint.startswith("did you mean vicuna-7b? ")
    assert not hub.requests


def test_a_hub_that_does_not_answer(client, hub):
    hub.fail(METADATA, "silent", seconds=2)
    once = "malmm_cli.hub.patience.WAITS = (0.05,)"
    error, hint = client.refused("models", "pull", SMALL, before=once, HF_HUB_ETAG_TIMEOUT="1")
    assert error == "someone/small: the Hub timed out"
    assert "check the connection" in hint


def test_a_hub_that_cannot_be_reached(client, hub):
    address = hub.url.rsplit(":", 1)[0] + ":9"
    _, err = client("models", "pull", SMALL, code=1, HF_ENDPOINT=address)
    error, hint = err.splitlines()  # and nothing that it was waited for
    assert error.startswith("error: someone/small: the Hub is unreachable: ")
    assert hint.endswith("malmm models pull someone/small")


def test_a_hub_that_goes_away_is_waited_for(client, hub):
    hub.fail(WEIGHTS, "down")
    _, err = client("models", "pull", SMALL, code=1)
    _, broke, *waits, error, hint = err.splitlines()
    assert "connection to the Hub lost" in broke
    assert len(waits) == 2
    assert all("is unreachable" in line for line in [*waits, error])
    assert "downloaded data is kept" in hint


def test_somebody_else_who_answers(client, hub):
    hub.fail(METADATA, "html")
    error, hint = client.refused("models", "pull", SMALL)
    assert error == "someone/small: unexpected response (a proxy or login page?)"
    assert "HF_ENDPOINT" in hint


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("flipped", "does not match the hash on the Hub"),
        ("short", "has {less} bytes, not {size}"),
        ("long", "bytes, not {size}"),
    ],
)
def test_a_file_that_is_another(client, hub, root, fault, says):
    hub.fail(WEIGHTS, fault)
    error, hint = client.refused("models", "pull", SMALL)
    assert error.startswith(f"someone/small: {WEIGHTS} ")
    size = (root / SMALL / WEIGHTS).stat().st_size
    assert says.format(size=size, less=size - 10) in error
    assert error.endswith("; the file was deleted") == (fault == "flipped"), "only what is wrong is"
    assert "again" in hint
    assert not list(client.storage.rglob("*.incomplete"))
    assert not list((client.storage / "snapshots").rglob(WEIGHTS))
    if fault == "flipped":
        hub.heal()
        same(client.pull()[0].strip(), root / SMALL)


def test_no_room_is_told_before_the_first_byte(client, hub):
    little = "shutil.disk_usage = lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6)"
    error, hint = client.refused("models", "pull", SMALL, before=little)
    assert "the download takes 2.5 MB" in error
    assert error.endswith("has only 1.0 MB free")
    assert "HF_HOME" in hint
    assert not hub.sent()


@pytest.mark.skipif(os.name == "nt", reason="no limits on the size of a file")
def test_no_room_in_the_middle(client, hub, root):
    part = client.storage / "blobs" / (Repository(root / SMALL).hash(WEIGHTS) + ".incomplete")
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))"
    error, hint = client.refused("models", "pull", SMALL, before=full)
    assert error == "someone/small cannot be saved: [Errno 27] File too large"
    assert hint.endswith("downloaded data is kept, so run the command again to resume")
    assert part.stat().st_size == 10**6, "downloaded data is kept"


def test_a_full_disk_has_its_own_hint():
    full = explained(OSError(errno.ENOSPC, "No space left on device"), "someone/small")
    assert full.kind == "CapacityError"
    assert full.hint.startswith("free up disk space")


def test_a_link_in_place_of_a_part_is_not_followed(client, hub, root, tmp_path):
    part = client.storage / "blobs" / (Repository(root / SMALL).hash(WEIGHTS) + ".incomplete")
    part.parent.mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    part.symlink_to(tmp_path / "precious")
    client.pull()
    assert (tmp_path / "precious").read_text() == "precious"


def test_too_little_memory_is_told_before_the_first_byte(client, hub, clip):
    command = ("caption", clip, "--model", "vicuna-7b", "--device", "cpu", "--dtype", "float32")
    error, hint = client.refused(*command, before="machine.free_memory = lambda: 20 * 10**9")
    assert error == (
        "vicuna-7b in float32 needs 31.7 GB of memory, but only 20.0 GB is free: 11.7 GB too little"
    )
    assert hint == (
        "qwen3-vl-2b (4.3 GB, Apache-2.0) is smaller and newer than vicuna-7b; "
        "run: malmm models use qwen3-vl-2b, or give --model qwen3-vl-2b"
    )
    assert not hub.sent()


def test_offline(client, hub):
    for options, environment in ((("--offline",), {}), ((), {"HF_HUB_OFFLINE": "1"})):
        error, hint = client.refused("models", "pull", SMALL, *options, **environment)
        assert "is not fully downloaded" in error
        assert hint == "while online, run: malmm models pull someone/small"
    assert not hub.requests


def test_half_a_model_is_none(client, hub, root):
    folder = Path(client("models", "pull", "flan-t5-xl")[0].strip())
    (gone,) = folder.glob("model-00002-*")
    gone.resolve().unlink()
    assert json.loads(client("models", "info", "flan-t5-xl", "--json")[0])["here"] is False
    error, _ = client.refused("models", "pull", "flan-t5-xl", "--offline")
    assert "not fully downloaded" in error
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
    assert "missing model*.safetensors" in error
    assert "can run code" in hint


def test_a_token_goes_to_the_hub_alone(client, hub):
    hub.fail(WEIGHTS, "cut", after=10**6, times=1)
    out, err = client.pull(HF_TOKEN="hf_secret")
    assert "hf_secret" not in out + err
    tokens = {r.host.split(":")[0]: r.token for r in hub.requests}
    assert tokens == {"127.0.0.1": "Bearer hf_secret", "localhost": None}
