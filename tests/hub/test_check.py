"""`malmm models check` of a model that comes from a Hub on loopback."""

import json

import pytest
from helpers import hub_client
from helpers.hub_models import publish_vlm
from helpers.hub_server import HubServer

root, hub, client = hub_client.root, hub_client.hub, hub_client.client

SMOLVLM = "HuggingFaceTB/SmolVLM2-256M-Video-Instruct"
PLENTY = "machine.free_memory = lambda: 10**12"
# the third layer is skipped, as by a loader that mixes names up
PLANTED = f"""{PLENTY}
from malmm_cli.models import registry
load = registry.load
def wrong(*arguments, **options):
    model = load(*arguments, **options)
    model.net.model.text_model.layers[2].mlp.down_proj.weight.zero_()
    return model
registry.load = wrong"""


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    publish_vlm(folder, SMOLVLM, "smolvlm")
    with HubServer(folder) as server:
        yield server


def test_a_published_model_is_fetched_and_compared(client, published, tmp_path):
    """It agrees with transformers' own path, until something is wrong with how it is loaded."""
    place = {"HF_ENDPOINT": published.url}
    path = tmp_path / "report.json"
    command = ("models", "check", "smolvlm2-256m", "--device", "cpu", "-o", path)
    out, err = client(*command, before=PLENTY, **place)
    assert "result      both paths agree\n" in out
    assert err.splitlines()[-1] == f"report: {path}"
    report = json.loads(path.read_text("utf-8"))
    assert (report["model"], report["repository"]) == ("smolvlm2-256m", SMOLVLM)
    assert report["revision"] == published.commit(SMOLVLM)
    assert report["dtype"] == "float32"
    assert report["agree"]

    more = ("--overwrite", "--offline", "--json")
    out, _ = client(*command, *more, before=PLANTED, code=1, **place)
    found = json.loads(out)
    assert found == json.loads(path.read_text("utf-8"))
    assert (found["agree"], found["prompts"]["equal"]) == (False, True)
    assert found["logits"]["largest_difference"] > found["logits"]["allowed"]
