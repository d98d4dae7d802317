"""Vision-language models from a Hub on loopback: their files, a caption, what is refused."""

import json
import shutil

import pytest
from helpers import hub_client
from helpers.hub_client import same
from helpers.hub_models import NEVER, SMALL, publish_vlm
from helpers.hub_server import HubServer

from malmm_cli import cli
from malmm_cli.models import registry

root, hub, client = hub_client.root, hub_client.hub, hub_client.client

QWEN3_VL, QWEN3_5 = "Qwen/Qwen3-VL-2B-Instruct", "Qwen/Qwen3.5-0.8B"
OPTIONS = ("--frames=4", "--max-new-tokens=6", "--dtype=float32", "--device=cpu", "--json")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    for repository, architecture in ((QWEN3_VL, "qwen3_vl"), (QWEN3_5, "qwen3_5")):
        publish_vlm(folder, repository, architecture)
    with HubServer(folder) as server:
        yield server


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_first_use(client, published, clip, capsys):
    """With its short name it is fetched, described and run, as it runs from its folder."""
    command = ("caption", clip, *OPTIONS, "--model", "qwen3-vl-2b")
    place = {"HF_ENDPOINT": published.url}
    out, err = client(*command, before="machine.free_memory = lambda: 10**12", **place)
    first, *rest = err.splitlines()
    assert first.startswith("qwen3-vl-2b: downloading ")
    assert first.endswith("(its main branch now, and recorded); licence: Apache-2.0")
    assert rest == ["qwen3-vl-2b on cpu, float32"]
    folder = published.root / QWEN3_VL
    assert published.sent() == dict.fromkeys(names(folder) - {*NEVER} | {"model.safetensors"}, 1)
    assert not published.sent().keys() & ({*NEVER} - {"model.safetensors"})
    assert cli.run([*map(str, command[:-1]), str(folder)]) == 0
    from_folder, differ = json.loads(capsys.readouterr().out), {"model", "revision", "seconds"}
    result = json.loads(out)
    assert {k: result[k] for k in result.keys() - differ} == {
        k: from_folder[k] for k in from_folder.keys() - differ
    }
    assert result["text"]
    assert result["frames"]["used"] == 4
    published.requests.clear()
    about = json.loads(client("models", "info", "qwen3-vl-2b", "--json", **place)[0])
    assert (about["here"], about["revision"]) == (True, published.commit(QWEN3_VL))
    assert not published.requests


def test_shards_of_other_names_and_tensors_that_nothing_needs(client, published):
    folder = client("models", "pull", "qwen3.5-0.8b", HF_ENDPOINT=published.url)[0].strip()
    shard = "model.safetensors-00001-of-00001.safetensors"
    assert published.sent()[shard] == 1
    same(folder, folder)
    assert registry.load(folder).spec.family == "vlm"


@pytest.mark.parametrize(
    ("config", "says", "hint"),
    [
        (
            {"model_type": "qwen2_5_vl"},
            "'qwen2_5_vl' cannot be used; known: ",
            "(qwen3_vl is near)",
        ),
        ({"model_type": "internvl_chat"}, "'internvl_chat' cannot be", "(internvl is near)"),
        ({"model_type": "bert"}, "qwen3_vl, qwen3_5, smolvlm, internvl", "a known type; `malmm"),
        (
            {"model_type": "qwen3_vl", "quantization_config": {"quant_method": "awq"}},
            "its weights are quantized by AWQ, which is not supported",
            "float16, bfloat16 or float32",
        ),
        (
            {"model_type": "qwen3_5", "text_config": {"quantization_config": {"bits": 4}}},
            "its weights are quantized, which is not supported",
            "--quantize makes them smaller",
        ),
    ],
)
def test_what_is_refused_before_its_weights_come(client, root, tmp_path, config, says, hint):
    shutil.copytree(root / SMALL, other := tmp_path / "other" / "someone" / "else")
    (other / "config.json").write_text(json.dumps(config))
    with HubServer(tmp_path / "other") as server:
        error, told = client.refused("models", "pull", "someone/else", HF_ENDPOINT=server.url)
        assert "model.safetensors" not in server.sent()
    assert error.startswith("someone/else: ")
    assert says in error
    assert hint in told


def test_the_default_is_announced_with_a_newer_one(client, hub, clip):
    command = ("caption", clip, *OPTIONS)
    _, err = client(*command, before="machine.free_memory = lambda: 10**12")
    note, first, *_ = err.splitlines()
    assert note == (
        "note: qwen3-vl-2b (4.3 GB, Apache-2.0) is smaller and newer than vicuna-7b; "
        "run: malmm models use qwen3-vl-2b, or give --model qwen3-vl-2b"
    )
    assert first.startswith("vicuna-7b: downloading ")
    _, err = client(*command)
    assert "smaller and newer" not in err
