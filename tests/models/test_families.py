"""Every model family keeps the contract, on a tiny random instance of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.contract import CHECKS
from helpers.toy_family import Toy

from malmm_cli.checkpoints import layout
from malmm_cli.models import registry
from malmm_cli.models.base import Context, VideoModel
from malmm_cli.models.instructblip import random_init as instructblip_init
from malmm_cli.models.video_llama import random_init as video_llama_init
from malmm_cli.models.video_llama.prompts import FORMS
from malmm_cli.models.vlm import random_init as vlm_init
from malmm_cli.models.vlm.load import ADAPTERS

WORDS = ["what", "does", "the", "video", "describe", "red", "circle", "how", "many", "short"]


def instructblip(folder: Path) -> VideoModel:
    config = instructblip_init.tiny_config("vicuna")
    instructblip_init.write(folder, config, WORDS, positions=6)
    return registry.load(folder)


def instructblip_without_positions(folder: Path) -> VideoModel:
    instructblip_init.write(folder, instructblip_init.tiny_config("vicuna"), WORDS)
    return registry.load(folder)


def vlm(architecture: str) -> Callable[[Path], VideoModel]:
    def make(folder: Path) -> VideoModel:
        vlm_init.write(folder, vlm_init.tiny_config(architecture), WORDS)
        return registry.load(folder)

    return make


def video_llama(conversation: str) -> Callable[[Path], VideoModel]:
    def make(folder: Path) -> VideoModel:
        video_llama_init.write(folder, video_llama_init.tiny_config(conversation), WORDS)
        return registry.load(folder)

    return make


FAMILIES: dict[str, Callable[[Path], VideoModel]] = {
    "instructblip": instructblip,
    "instructblip without positions": instructblip_without_positions,
    **{f"vlm {name}": vlm(name) for name in ADAPTERS},
    **{f"video_llama {name}": video_llama(name) for name in FORMS},
}
OURS: dict[str, Callable[[Path], VideoModel]] = {"toy": lambda _: Toy()}  # only for tests


@pytest.fixture(scope="module", params=[*FAMILIES, *OURS])
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    make = {**FAMILIES, **OURS}[request.param]
    return make(tmp_path_factory.mktemp("family") / request.param)


def test_every_registered_family_is_tested():
    assert {name.split()[0] for name in FAMILIES} == set(registry.FAMILIES.values())
    assert registry.FAMILIES.keys() == layout.FAMILIES.keys()


@pytest.mark.parametrize("check", CHECKS)
def test_contract(model, check, one_thread, request):
    if (check, "without positions" in request.node.name) == ("training_forms_agree", True):
        pytest.skip("frames differ so little then that rounding decides what is merged")
    CHECKS[check](model)


def test_some_prompts_of_a_context():
    times = torch.arange(12.0).view(3, 4)
    plain = Context(torch.arange(6.0).view(3, 2, 1), extras={"times": times})
    assert torch.equal(plain.chosen([2, 0]).tokens, plain.tokens[[2, 0]])
    assert torch.equal(plain.chosen([2, 0]).extras["times"], times[[2, 0]])
    warned = Context(plain.tokens, [("a",), (), ("c",)])
    assert warned.chosen([2, 1]).warnings == [("c",), ()]


def test_contexts_of_several_lengths_need_a_mask():
    long, short = torch.ones(1, 3, 2), torch.ones(2, 1, 2)
    parts = [Context(x, extras={"mask": x[..., 0] > 0}) for x in (long, short)]
    joined = Context.joined(parts)
    assert joined.extras["mask"].tolist() == [[True] * 3, *[[True, False, False]] * 2]
    assert (joined.tokens[1:, 1:] == 0).all()
    with pytest.raises(AssertionError, match="no mask"):
        Context.joined([Context(long), Context(short)])
