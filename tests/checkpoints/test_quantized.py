"""Weights that somebody else has quantized: refused by the name of the method."""

import json

import pytest

from malmm_cli.models.vlm import random_init

METHODS = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "bitsandbytes": "bitsandbytes"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    random_init.write(folder, random_init.tiny_config("qwen3_vl"), ["what"])
    return folder


@pytest.mark.parametrize(("method", "name"), METHODS.items())
@pytest.mark.parametrize("part", ["", "text_config"])
def test_they_are_refused_by_the_name_of_the_method(refused, folder, part, method, name):
    path = folder / "config.json"
    text = path.read_text("utf-8")
    config = json.loads(text)
    (config[part] if part else config)["quantization_config"] = {"quant_method": method}
    says = f"{folder}: its weights are quantized by {name}, which is not supported"
    try:
        path.write_text(json.dumps(config))
        for command in (("models", "info"), ("caption", "examples/shapes.mp4", "--model")):
            refused(*command, folder, code=1, says=says, hint="--quantize makes them smaller")
    finally:
        path.write_text(text)
