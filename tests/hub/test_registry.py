"""What is known of models before their download, held against models of the published sizes."""

from math import prod

import pytest
import torch
import transformers

from malmm_cli.checkpoints.layout import FAMILIES
from malmm_cli.hub import scores
from malmm_cli.hub.registry import DEFAULT, KNOWN, memory_by_form, memory_needed
from malmm_cli.hub.snapshot import read_weights
from malmm_cli.models import registry
from malmm_cli.models.instructblip import random_init as instructblip_init
from malmm_cli.models.instructblip.published import published_config as older_config
from malmm_cli.models.vlm import random_init as vlm_init
from malmm_cli.models.vlm.load import ADAPTERS
from malmm_cli.models.vlm.published import published_config

PUBLISHED = {name: known for name, known in KNOWN.items() if known.repository}
NEWER = [name for name, known in PUBLISHED.items() if known.model_type in ADAPTERS]
OLDER = [name for name in PUBLISHED if name not in NEWER]


def built(name):
    """The model of a published configuration, without numbers."""
    kind = getattr(transformers, ADAPTERS[KNOWN[name].model_type].kind)
    with torch.device("meta"):
        return kind(published_config(name))


def linear(net):
    """Names of the weights that bitsandbytes quantises: all linear layers but the head."""
    head = net.get_output_embeddings()
    modules = dict(net.named_modules()).items()
    kinds = {name for name, one in modules if isinstance(one, torch.nn.Linear) and one is not head}
    return {f"{name}.weight" for name in kinds}


@pytest.mark.parametrize("name", NEWER)
def test_parameters_of_vision_language_models(name):
    net = built(name)
    sizes = {key: value.numel() for key, value in net.named_parameters()}
    assert sum(sizes.values()) == KNOWN[name].parameters
    quantised = linear(net)
    assert sum(n for key, n in sizes.items() if key not in quantised) == KNOWN[name].whole


@pytest.mark.parametrize("name", OLDER)
def test_parameters_of_the_first_models(name):
    layout = FAMILIES[KNOWN[name].model_type]
    shapes = instructblip_init.shapes(older_config(name))
    sizes = {key: prod(shape) for key, shape in shapes}
    assert sum(sizes.values()) == KNOWN[name].parameters
    assert KNOWN[name].whole == sum(
        prod(shape)
        for key, shape in instructblip_init.shapes(older_config(name))
        if not layout.quantizes(key, shape)
    )


@pytest.mark.parametrize("architecture", ADAPTERS)
def test_what_stays_whole_is_read_from_the_files_of_any_folder(architecture, tmp_path):
    vlm_init.write(tmp_path, vlm_init.tiny_config(architecture), ["what"])
    found, net = read_weights(tmp_path), registry.load(tmp_path).net
    quantised = linear(net)
    sizes = {key: value.numel() for key, value in net.named_parameters()}
    assert found.parameters == sum(sizes.values())
    assert found.whole == sum(n for key, n in sizes.items() if key not in quantised)
    assert 0 < found.whole < found.parameters


def test_a_quantised_model_takes_what_is_whole_and_a_part_of_the_rest():
    assert memory_needed(100, "float16", "4bit", 40) == 2 * 40 + 0.6 * 60
    assert memory_needed(100, "float16", "8bit", 40) == 2 * 40 + 1.05 * 60
    assert memory_needed(100, "bfloat16") == 200
    assert memory_by_form(None, None)["4bit"] is None
    for known in PUBLISHED.values():
        forms = [*memory_by_form(known.parameters, known.whole).values()]
        assert forms == sorted(forms, reverse=True)
        assert forms[-1] > 0.5 * known.parameters


def test_names_are_those_that_the_project_promises():
    sizes = {"qwen3-vl": "2b 4b 8b", "qwen3.5": "0.8b 2b 4b", "smolvlm2": "256m 500m 2.2b"}
    promised = {f"{series}-{size}" for series, ends in sizes.items() for size in ends.split()}
    assert {*promised, DEFAULT} <= KNOWN.keys()
    assert all(known.model_type in registry.FAMILIES for known in PUBLISHED.values())
    assert len({known.repository for known in PUBLISHED.values()}) == len(PUBLISHED)


def test_scores_have_a_source_and_a_model():
    assert scores.SCORES.keys() <= PUBLISHED.keys()
    for row in scores.SCORES.values():
        assert row.source
        known = [x for x in (row.mlvu, row.video_mme, row.lvbench) if x is not None]
        assert known
        assert all(0 < score < 100 for score in known)
