"""Mirrors of the Hub that tell less than it does, or keep files elsewhere."""

import json

import hub_client
import pytest
from hub_client import WEIGHTS, same
from hub_models import SMALL
from hub_server import METADATA

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
    assert "licence: see its page on the Hub" in err
    same(out.strip(), root / SMALL)
