"""Mirrors of the Hub that tell less than it does, or keep files elsewhere."""

import json
import os
import time
from types import SimpleNamespace

import pytest
from helpers import hub_client
from helpers.hub_client import WEIGHTS, content, same
from helpers.hub_models import SMALL
from helpers.hub_server import METADATA

from malmm_cli.hub import errors

root, hub, client = hub_client.root, hub_client.hub, hub_client.client


def listed(hub, *, beside=None, **weights):
    """The Hub's own list, in which the entry of the weights says something else (None: nothing)."""
    files = hub.repositories[SMALL]
    entries = [files.entry(name, tree=False) for name in files.files]
    for entry in entries:
        if entry["rfilename"] == WEIGHTS:
            entry.update(weights)
    told = {"id": SMALL, "sha": hub.commit(SMALL), "siblings": entries, **(beside or {})}
    return json.dumps(told)


# --- lists that lack something


@pytest.mark.parametrize("lacking", ["size", "sha256", "pointerSize", "all"])
def test_a_list_that_tells_half_of_a_large_file(client, hub, root, lacking):
    large = {"size": 2_500_080, "sha256": hub.repositories[SMALL].hash(WEIGHTS), "pointerSize": 134}
    less = {key: value for key, value in large.items() if lacking not in (key, "all")}
    hub.fail(METADATA, "text", text=listed(hub, lfs=less))
    out, _ = client.pull()
    same(out.strip(), root / SMALL)


def test_what_else_a_list_says_oddly_is_not_looked_at(client, hub, root):
    odd = {"safetensors": {"total": "many"}, "lastModified": "yesterday", "cardData": ["mit"]}
    hub.fail(METADATA, "text", text=listed(hub, beside=odd))
    out, err = client.pull()
    assert "licence: see the model page on the Hub" in err
    same(out.strip(), root / SMALL)


# --- addresses that are no longer valid, wherever the Hub has sent us

OLD = ["expired", "unauthorised", "forbidden", "absent", "gone"]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])  # elsewhere, and on the same host
def test_an_address_that_ran_out_is_asked_for_anew(client, hub, root, name):
    for kind in OLD:
        hub.fail(name, "cut", after=3, times=1)  # what arrives in between starts patience anew
        hub.fail(name, kind, times=1)
    out, err = client.pull(HF_TOKEN="hf_secret")
    assert len(content(hub, name)) == 2 * len(OLD) + 1
    assert err.count("trying again") == 2 * len(OLD)
    same(out.strip(), root / SMALL)


@pytest.mark.parametrize("kind", OLD)
def test_a_new_address_on_the_same_host_is_asked_for_once(client, hub, kind):
    hub.fail("config.json", kind)
    error, _ = client.refused("models", "pull", SMALL, HF_TOKEN="hf_secret")
    assert "the Hub's file storage" not in error
    assert len(content(hub, "config.json")) == 2


def test_what_the_hub_itself_refuses_is_asked_for_once():
    error = Exception("404")
    error.response = SimpleNamespace(status_code=404, headers={}, history=[])
    assert not errors.is_old_address(error), "nobody was redirected"
    error.response.history = [SimpleNamespace()]
    assert errors.is_old_address(error)
    error.response.headers["X-Error-Code"] = "EntryNotFound"
    assert not errors.is_old_address(error)


# --- bytes that are not the file's


@pytest.mark.parametrize("kind", ["unnamed", "parts", "words"])
@pytest.mark.parametrize("cut", [0, 1_000_000])
def test_an_answer_that_does_not_say_what_it_is_is_not_taken(client, hub, root, kind, cut):
    if cut:
        hub.fail(WEIGHTS, "cut", after=cut, times=1)
    hub.fail(WEIGHTS, kind, times=1)
    out, _ = client.pull()
    assert content(hub) == [*["bytes=0-"] * bool(cut), f"bytes={cut}-", f"bytes={cut}-"]
    same(out.strip(), root / SMALL)


def test_an_error_in_place_of_the_file_is_not_kept(client, hub):
    hub.fail(WEIGHTS, "words")
    error, hint = client.refused("models", "pull", SMALL)
    assert error == "someone/small: model.safetensors has 5 bytes, not 2500080"
    assert "a proxy may be altering files" in hint
    assert all(part.stat().st_size == 0 for part in client.storage.rglob("*.incomplete"))


def test_a_wrong_hash_is_tried_once_more_from_where_the_run_began(client, hub, root):
    hub.fail(WEIGHTS, "cut", after=1_000_000, times=1)
    hub.fail(WEIGHTS, "words")
    client.refused("models", "pull", SMALL)
    hub.heal()
    hub.requests.clear()
    hub.fail(WEIGHTS, "cut", after=500_000, times=1)
    hub.fail(WEIGHTS, "flipped", times=1)
    out, err = client.pull()
    assert content(hub) == ["bytes=1000000-", "bytes=1500000-", "bytes=1000000-"]
    assert "model.safetensors does not match the hash on the Hub; trying again" in err
    same(out.strip(), root / SMALL)


# --- what is said of it


@pytest.mark.skipif(os.name == "nt", reason="no tzset")
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
@pytest.mark.parametrize(
    "date",
    [
        "Wed Oct 21 07:28:09 2015",
        "Wednesday, 21-Oct-15 07:28:09 GMT",
        "Wed, 21 Oct 2015 07:28:09",
        "Wed, 21 Oct 2015 07:28:09 -0000",
        "Wed, 21 Oct 2015 09:28:09 +0200",
    ],
)
@pytest.mark.parametrize("now", ["Wed, 21 Oct 2015 07:28:00 GMT", "Wed Oct 21 07:28:00 2015"])
def test_a_date_without_a_zone_is_that_of_greenwich(monkeypatch, zone, date, now):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        error = Exception("429")
        error.response = SimpleNamespace(headers={"Retry-After": date, "Date": now})
        assert errors.asked_to_wait(error) == 9
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_storage_that_cannot_be_reached_is_not_the_hub(client, hub):
    hub.fail(f"{WEIGHTS} address", "http://127.0.0.1:9/x?signature=secret")
    error, hint = client.refused("models", "pull", SMALL)
    assert error.startswith("someone/small: 127.0.0.1 (the Hub's file storage) is unreachable: ")
    assert "secret" not in error
    assert "check the connection" in hint
    assert "HF_ENDPOINT" not in hint


def test_a_storage_whose_line_breaks_is_not_the_hub(client, hub):
    hub.fail(WEIGHTS, "silent", seconds=2)
    once = "malmm_cli.hub.patience.WAITS = (0.05,)"
    error, _ = client.refused("models", "pull", SMALL, before=once, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert "localhost" in error
    assert error.endswith(" (the Hub's file storage) timed out")


def test_an_address_of_another_kind_is_told_at_once(client, hub):
    hub.fail(f"{WEIGHTS} address", "ftp://localhost/x?signature=secret")
    _, err = client("models", "pull", SMALL, code=1)
    assert "trying again" not in err
    assert "error: someone/small: the Hub returned an address that is not http(s): ftp://" in err
    assert "secret" not in err


def test_a_size_of_nothing_is_not_believed(client, hub, root):
    hub.fail(METADATA, "text", text=listed(hub, size=0))
    out, _ = client.pull()
    same(out.strip(), root / SMALL)
