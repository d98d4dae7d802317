"""Parity with transformers' own video path: prompts, logits, answers, by architecture and version.

`tests/golden/vlm/make.py` writes the files; $MALMM_GOLDEN names another folder of them.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from malmm_cli.models import registry
from malmm_cli.models.vlm import check, random_init
from malmm_cli.models.vlm.adapter import Tokens
from malmm_cli.models.vlm.load import ADAPTERS, _numbers
from malmm_cli.models.vlm.prefix import ahead, widened
from malmm_cli.settings import Decoding, MemoryOptions

GOLDEN = Path(__file__).parents[2] / "golden" / "vlm"
FILES = sorted(GOLDEN.glob("*.safetensors"))
TOLERANCE = 1e-5  # of the largest logit


def script():
    about = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make.py")
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


MAKE = script()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Models by architecture, each made once."""

    @cache
    def make(name: str):
        if _numbers(transformers.__version__) < _numbers(ADAPTERS[name].since):
            pytest.skip(f"transformers {transformers.__version__} is too old for {name}")
        folder = tmp_path_factory.mktemp("vlm") / name
        random_init.write(folder, random_init.tiny_config(name), MAKE.WORDS)
        return registry.load(folder, dtype=torch.float64)

    return make


def by_shape():
    for path in FILES:
        for shape in MAKE.SHAPES:
            yield pytest.param(path, shape, id=f"{path.stem}-{shape}")


def as_published(model, version: str):
    """The model with the marks around the video that this version has."""
    later = tuple(map(int, version.split(".")[:2])) >= (5, 12)
    if model.adapter.kind.startswith("Qwen") and later:
        return replace(model, adapter=replace(model.adapter, outer=True))
    return model


def watched(model, shape: str):
    number, across, down = MAKE.SHAPES[shape]
    pixels = torch.from_numpy(MAKE.frames(number, *MAKE.size_of(model.adapter, across, down)))
    seconds = torch.arange(number).double() / MAKE.FPS
    per = model.adapter.frames_per_feature
    places = torch.arange(-(-number // per) * per).clamp(max=number - 1)
    features = model.encode(pixels[places], seconds[places])
    memory = model.start([MAKE.PROMPT], MemoryOptions(8, banks="visual", merge="frame"))
    model.observe(memory, features)
    return memory, model.context(memory)


def test_there_are_files_of_every_architecture():
    assert {path.stem.rpartition("-")[0] for path in FILES} == set(ADAPTERS)


def test_the_table_in_the_docs_has_these_files_and_what_is_compared():
    page = (GOLDEN.parents[2] / "docs" / "vision-language.md").read_text("utf-8")
    heading, _, *rows = page.split("each of them:\n\n")[1].split("\n\n")[0].splitlines()
    versions = re.findall(r"transformers (\S+)", heading)
    shown = set()
    for row in rows:
        name, *cells = [cell.strip(" `") for cell in row.strip("|").split("|")]
        shown |= {f"{name}-{v}" for v, cell in zip(versions, cells, strict=True) if cell == "yes"}
    assert shown == {path.stem for path in FILES}
    numbers = [str(number) for number, *_ in MAKE.SHAPES.values()]
    assert f"{len(numbers)} videos of noise: {', '.join(numbers[:-1])} and {numbers[-1]}" in page
    assert f"greedy answer of {MAKE.NEW} tokens" in page
    assert f"in {MAKE.NUMBERS} columns" in page
    assert f"within {TOLERANCE:.0e}".replace("e-0", "e-") in page


@pytest.mark.parametrize(("path", "shape"), [*by_shape()])
def test_the_prompt_its_logits_and_the_answer_are_transformers_own(path, shape, made, one_thread):
    name, _, version = path.stem.rpartition("-")
    model = as_published(made(name), version)
    due = {k.partition(".")[2]: v for k, v in load_file(path).items() if k.startswith(f"{shape}.")}
    memory, context = watched(model, shape)
    ids = check.prompt_ids(model.adapter, model.texts, memory, MAKE.PROMPT)
    asked = model.texts.ids(model.adapter.question(MAKE.PROMPT))
    assert ids == due["ids"].tolist()

    (which, tokens, kept) = next(model._prefixes(context))
    assert which == [0]
    question = torch.tensor([asked])
    behind = Tokens(
        model.net.get_input_embeddings()(question), ahead(tokens, question.ge(0).long())
    )
    with torch.no_grad():
        cache = transformers.DynamicCache(config=model.net.config.get_text_config())
        whole = model.adapter.read(model.net, tokens, cache)
        after = model.adapter.read(model.net, behind, widened(kept, 1))
        logits = MAKE.projected(model.net.lm_head(torch.cat([whole, after], 1))[0])
    scale = due["logits"].abs().max()
    assert (logits - due["logits"]).abs().max() < TOLERANCE * scale

    answer = due["answer"].tolist()
    assert len(answer) == MAKE.NEW
    assert len(set(answer)) > 1
    greedy = Decoding(max_new_tokens=MAKE.NEW, beams=1, repetition_penalty=1.0)
    assert model.generate(context, [MAKE.PROMPT], greedy) == [
        [model.texts.decode(due["answer"][None])[0]]
    ]
