"""Answers that cannot be used, and those that ask to wait: what has arrived of a file stays."""

import json
import os
import shutil
import signal
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from helpers import hub_client
from helpers.hub_client import WEIGHTS, content, same
from helpers.hub_models import SMALL
from helpers.hub_server import METADATA, HubServer, Repository

from malmm_cli.errors import ModelError
from malmm_cli.events import SILENT
from malmm_cli.hub import errors, patience
from malmm_cli.hub.errors import asked_to_wait

root, hub, client = hub_client.root, hub_client.hub, hub_client.client

CUT = 1_000_000
AGAIN = f"bytes={CUT}-"


@pytest.fixture
def part(client, hub, root):
    """What has arrived of the weights; every test begins with a line that breaks once."""
    hub.fail(WEIGHTS, "cut", after=CUT, times=1)
    hash_ = Repository(root / SMALL).hash(WEIGHTS)
    return client.storage / "blobs" / f"{hash_}.incomplete"


def is_kept(part, root):
    return part.read_bytes() == (root / SMALL / WEIGHTS).read_bytes()[:CUT]


# --- a part of a file that cannot be the one that was asked for

UNUSABLE = ("refused", "empty", "shifted", "more", "wrong part", "zipped")


def test_an_answer_that_is_of_no_use_is_asked_for_again(client, hub, root):
    expected = []
    for number, kind in enumerate(UNUSABLE):  # what arrives in between starts patience anew
        hub.fail(WEIGHTS, "cut", after=100_000, times=1)
        hub.fail(WEIGHTS, kind, times=1)
        expected += [f"bytes={number * 100_000}-", f"bytes={(number + 1) * 100_000}-"]
    out, err = client.pull()
    assert content(hub) == [*expected, expected[-1]]
    assert err.count("trying again") == 2 * len(UNUSABLE)
    same(out.strip(), root / SMALL)


@pytest.mark.parametrize("kind", ["refused", "shifted"])
def test_where_no_part_is_to_be_had_the_whole_file_is(client, hub, root, part, kind):
    hub.fail(WEIGHTS, kind, resumed=True)
    out, _ = client.pull()
    assert content(hub) == ["bytes=0-", AGAIN, AGAIN, None]
    same(out.strip(), root / SMALL)


@pytest.mark.parametrize("kind", ["refused", "empty"])
def test_what_has_arrived_stays_when_nothing_more_comes(client, hub, root, part, kind):
    hub.fail(WEIGHTS, kind, resumed=True)
    hub.fail(WEIGHTS, "error")
    _, hint = client.refused("models", "pull", SMALL)
    assert "downloaded data is kept" in hint
    assert is_kept(part, root)
    hub.heal()
    hub.requests.clear()
    same(client.pull()[0].strip(), root / SMALL)
    assert content(hub) == [AGAIN]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("short", "has 2500070 bytes, not 2500080"),
        ("long", "has 2500090 bytes, not 2500080"),
        ("html", "unexpected response (a proxy or login page?)"),
        ("lost", "got no data for model.safetensors (HTTP 302)"),
        ("circle", "the Hub redirects in circles"),
    ],
)
def test_what_has_arrived_stays_when_somebody_else_answers(client, hub, root, part, kind, says):
    hub.fail(WEIGHTS, kind)
    error, _ = client.refused("models", "pull", SMALL)
    assert says in error
    assert is_kept(part, root)


def test_a_file_that_changes_on_the_hub(client, hub, root, part):
    part.parent.mkdir(parents=True)
    part.write_bytes((root / SMALL / WEIGHTS).read_bytes()[:CUT])
    hub.fail(f"{WEIGHTS} address", "changed")
    error, hint = client.refused("models", "pull", SMALL)
    assert error == "someone/small: model.safetensors is not the file listed on the Hub"
    assert "a proxy may be altering files" in hint
    assert is_kept(part, root)


def test_a_server_that_knows_no_parts(client, hub, root, part):
    hub.fail(WEIGHTS, "whole")
    out, _ = client.pull()
    assert content(hub) == ["bytes=0-", AGAIN]
    same(out.strip(), root / SMALL)


def test_a_server_that_knows_no_parts_and_is_cut_again(client, hub, root, part):
    hub.fail(WEIGHTS, "whole", after=CUT // 2)
    error, _ = client.refused("models", "pull", SMALL)
    assert "connection to the Hub lost" in error
    assert is_kept(part, root)


def test_a_line_that_breaks_after_the_last_byte(client, hub, root):
    hub.fail(WEIGHTS, "unended", times=1)
    out, err = client.pull()
    assert content(hub) == ["bytes=0-"]
    assert "trying again" not in err
    same(out.strip(), root / SMALL)


def test_what_is_compressed_unasked(client, hub, root):
    hub.fail(WEIGHTS, "zipped")
    hub.fail("config.json", "zipped")
    same(client.pull()[0].strip(), root / SMALL)


@pytest.mark.parametrize("right", [True, False])
def test_more_is_here_than_the_file_has(client, hub, root, part, right):
    hub.heal()
    whole = (root / SMALL / WEIGHTS).read_bytes()
    part.parent.mkdir(parents=True)
    part.write_bytes((whole if right else bytes(len(whole))) + bytes(10))
    if right:
        same(client.pull()[0].strip(), root / SMALL)
    else:
        error, _ = client.refused("models", "pull", SMALL)
        assert error.endswith("does not match the hash on the Hub; the file was deleted")
        assert not part.exists()
    assert content(hub) == []


def test_a_file_without_content(client, root, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(root / SMALL, other / SMALL)
    (other / SMALL / "special_tokens_map.json").write_bytes(b"")
    with HubServer(other) as server:
        out, _ = client.pull(HF_ENDPOINT=server.url)
    same(out.strip(), other / SMALL)


# --- an address that is no longer valid


def test_a_new_address_is_asked_for_once(client, hub, root):
    for _ in range(2):  # what arrives in between starts patience anew
        hub.fail(WEIGHTS, "forbidden", times=1)
        hub.fail(WEIGHTS, "cut", after=CUT, times=1)
    out, err = client.pull()
    asked = [
        r.path for r in hub.requests if r.path == f"/{SMALL}/resolve/{hub.commit(SMALL)}/{WEIGHTS}"
    ]
    assert len(asked) == len(content(hub)) == 5
    assert "log in" not in err
    same(out.strip(), root / SMALL)


@pytest.mark.parametrize("kind", ["forbidden", "unauthorised"])
def test_a_storage_that_refuses_every_address(client, hub, root, part, kind):
    hub.fail(WEIGHTS, kind)
    error, hint = client.refused("models", "pull", SMALL)
    status = {"forbidden": 403, "unauthorised": 401}[kind]
    assert error == (f"someone/small: localhost (the Hub's file storage) returned HTTP {status}")
    assert "log in" not in hint
    assert content(hub) == ["bytes=0-", AGAIN, AGAIN]
    assert is_kept(part, root)


# --- a Hub that asks to wait


@pytest.mark.parametrize("file", [METADATA, WEIGHTS])
def test_a_hub_that_asks_to_wait_is_waited_for(client, hub, root, file):
    hub.fail(file, "limited", retry="7", times=5)  # more often than it would try by itself
    hub.fail(file, "busy", retry=formatdate(time.time() + 30, usegmt=True), times=1)
    hub.fail(file, "limited", limit='"api";r=0;t=55', times=1)
    out, err = client.pull(before="import time; time.sleep = lambda _: None")
    waits = [line.rsplit("trying again in ")[1] for line in err.splitlines() if "again in" in line]
    assert waits[:5] == ["7 s"] * 5
    assert waits[5] in ("28 s", "29 s", "30 s", "31 s")
    assert waits[6:] == ["55 s"]
    assert "someone/small: rate limited by the Hub (429), retry after 7 s; trying" in err
    same(out.strip(), root / SMALL)


@pytest.mark.parametrize("file", [METADATA, WEIGHTS])
def test_a_hub_that_asks_to_wait_for_hours_is_not(client, hub, file):
    hub.fail(file, "limited", retry="7200")
    error, hint = client.refused("models", "pull", SMALL)
    assert error == "someone/small: rate limited by the Hub (429), retry after 7200 s"
    assert hint == "downloaded data is kept, so run the command again after that"


@pytest.mark.skipif(os.name == "nt", reason="no such signals")
def test_ctrl_c_ends_the_wait_at_once(client, hub, root, part):
    hub.fail(WEIGHTS, "limited", retry="300")
    process = client.start("models", "pull", SMALL)
    hub.wait_for(lambda _: content(hub) == ["bytes=0-", AGAIN])
    for line in process.stderr:
        if "trying again in 300 s" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert is_kept(part, root)


def answer(**headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    error = Exception("429")
    error.response = SimpleNamespace(status_code=429, headers=named, history=[])
    return error


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "12"}, 12),
        ({"Retry_After": " 0 "}, 0),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        # the server's own clock counts, where it is told
        (
            {
                "Retry_After": "Wed, 21 Oct 2015 07:28:09 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            9,
        ),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-3"}, None),
        ({"Retry_After": "²"}, None),
        ({"Retry_After": "Wed, 99 Oct 2015"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api";r=10;t=55'}, None),
        ({}, None),
    ],
)
def test_what_an_answer_asks_for(headers, seconds):
    assert asked_to_wait(answer(**headers)) == seconds


def test_an_error_without_an_answer_asks_for_nothing():
    assert asked_to_wait(TimeoutError()) is None


def test_patience_has_an_end(monkeypatch):
    """However short the waits that are asked for; and what arrives starts it anew."""
    slept = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)
    waiting = patience.Patience(lambda e: ModelError(str(e)), SILENT, started=True)
    for arrived in (False, True):
        slept.clear()
        errors = (answer(Retry_After="1") for _ in range(10**6))
        with pytest.raises(Exception, match="429"):
            any(waiting.after(e, arrived=arrived and not slept) for e in errors)
        assert 0.9 * patience.LONGEST < sum(slept) <= patience.LONGEST


# --- a list of files that is none


def listed(files, commit="c" * 40):
    return json.dumps({"id": SMALL, "sha": commit, "siblings": files})


NO_LISTS = (
    listed([{"rfilename": "config.json", "size": 3, "blobId": "0" * 40}])[:-7],
    *("[]", "[1, 2]", "null", "3", "{}", "[" * 100_000),
    '{"id": "a/b", "siblings": [3]}',
    '{"id": "a/b", "siblings": {"a": 1}}',
    '{"id": "a/b", "siblings": [{"name": "config.json"}]}',
    '{"id": "a/b", "siblings": [{"rfilename": "config.json", "lfs": {"size": 1}}]}',
    listed([], commit="../../../.."),
)


def test_a_list_that_is_none(client, hub):
    for text in NO_LISTS:
        hub.fail(METADATA, "text", text=text, times=1)
    several = f"for _ in range({len(NO_LISTS) - 1}): cli.run(sys.argv[1:])"
    _, err = client("models", "pull", SMALL, code=1, before=several)
    told = err.splitlines()
    assert told[::2] == [
        "error: someone/small: unexpected response (a proxy or login page?)"
    ] * len(NO_LISTS)
    assert all("HF_ENDPOINT" in hint for hint in told[1::2])


def test_a_redirection_in_a_circle_is_told_at_once(client, hub):
    hub.fail(METADATA, "circle")
    error, _ = client.refused("models", "pull", SMALL)
    assert error == "someone/small: the Hub redirects in circles"
    assert sum(r.path.startswith("/api/models/") for r in hub.requests) <= 21, "one round of it"


def test_a_mirror_that_lists_no_sizes(client, hub, root):
    hub.tells = "headers"
    out, err = client.pull()
    assert "downloading 2.5 MB" in err
    same(out.strip(), root / SMALL)


def test_a_mirror_that_tells_no_hashes(client, hub):
    hub.tells = "nothing"
    error, hint = client.refused("models", "pull", SMALL)
    assert error.startswith("someone/small: ")
    assert error.endswith(" has no size or hash on the Hub, so it cannot be verified")
    assert "mirror" in hint
    assert hub.url in hint
    assert not hub.sent()


def test_a_hash_is_not_taken_for_a_path(client, hub, root, tmp_path):
    hub.tells = "nothing"
    names = ("config.json", "tokenizer.json", "qformer_tokenizer/tokenizer.json", WEIGHTS)
    files = [{"rfilename": n, "size": 3, "blobId": "../../../../../outside"} for n in names]
    hub.fail(METADATA, "text", text=listed(files, commit=hub.commit(SMALL)))
    error, _ = client.refused("models", "pull", SMALL)
    assert "cannot be verified" in error
    assert not list(tmp_path.rglob("outside*"))


def test_only_what_is_the_storages_own_refusal_is_asked_for_anew():
    """What the Hub itself refuses stays refused."""
    place = SimpleNamespace(netloc=b"hub", host="hub")
    other = SimpleNamespace(netloc=b"cdn", host="cdn")
    error = answer()
    error.response.status_code, error.response.url = 403, other
    assert errors.of_storage(error) is None, "nobody was redirected"
    error.response.history = [SimpleNamespace(url=place)]
    assert errors.of_storage(error) == "cdn"
    error.response.url = place
    assert errors.of_storage(error) is None
    error.response.url, error.response.headers = other, {"X-Error-Code": "GatedRepo"}
    assert errors.of_storage(error) is None
