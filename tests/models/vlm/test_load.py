"""Folders that a vision-language model cannot be made of, each told in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from malmm_cli.errors import CapacityError, ModelError
from malmm_cli.models import registry
from malmm_cli.models.vlm import load as loading
from malmm_cli.models.vlm import qwen3_vl
from malmm_cli.settings import Decoding, MemoryOptions

GREEDY = Decoding(max_new_tokens=8, beams=1, repetition_penalty=1.0)


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of a tiny model's folder, to be damaged."""

    def copy(name: str):
        return shutil.copytree(folders(name), tmp_path / name)

    return copy


def edited(folder, name: str, **changes):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder) -> str:
    with pytest.raises(ModelError) as caught:
        registry.load(folder)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message


def test_transformers_may_be_too_old(copied, monkeypatch):
    monkeypatch.setattr(loading, "version", lambda name: "5.6.2")
    told = refused(copied("qwen3_5"))
    assert told == "this model needs transformers 5.7 or later; 5.6.2 is installed"


@pytest.mark.parametrize(
    ("architecture", "changes", "told"),
    [
        ("qwen3_vl", {"patch_size": 14}, "patch_size is 14, but this kind of model takes 8"),
        ("qwen3_5", {"merge_size": 4}, "merge_size is 4"),
        ("smolvlm", {"image_seq_len": 81}, "image_seq_len is 81"),
        ("internvl", {"image_mean": [0.5, 0.5, 0.5]}, "image_mean is"),
        ("smolvlm", {"image_std": [0.2, 0.2, 0.2]}, "image_std is"),
    ],
)
def test_a_processor_that_disagrees_is_named(copied, architecture, changes, told):
    folder = copied(architecture)
    edited(folder, "preprocessor_config.json", **changes)
    assert told in refused(folder)


def test_a_model_without_a_template_or_with_another_is_refused(copied):
    folder = copied("qwen3_vl")
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|vision_start|>", "<start_of_image>"))
    assert "lacks <|vision_start|>" in refused(folder)
    path.unlink()
    assert "has no chat template" in refused(folder)


def test_a_template_in_the_tokenizers_file_counts(copied):
    folder = copied("smolvlm")
    path = folder / "chat_template.jinja"
    edited(folder, "tokenizer_config.json", chat_template=path.read_text())
    path.unlink()
    registry.load(folder)


def test_a_tokenizer_without_the_marks_of_the_prompt_is_refused(copied, folders):
    folder = copied("qwen3_vl")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folders("smolvlm") / name, folder / name)
    assert "the tokenizer lacks <|im_end|>, <|vision_start|>, <|vision_end|>" in refused(folder)
    (folder / "tokenizer.json").unlink()
    assert "tokenizer cannot be read" in refused(folder)


def test_weights_that_nothing_needs_are_left_out_by_name_only(copied):
    for architecture, allowed in (("qwen3_5", True), ("qwen3_vl", False)):
        folder = copied(architecture)
        path = folder / "model.safetensors"
        save_file({**load_file(path), "mtp.fc.weight": torch.zeros(2, 2)}, path)
        if allowed:
            registry.load(folder)
        else:
            assert "unexpected mtp.fc.weight" in refused(folder)


@pytest.mark.parametrize("architecture", list(loading.ADAPTERS))
def test_every_parameter_is_needed(copied, architecture):
    folder = copied(architecture)
    path = folder / "model.safetensors"
    state = load_file(path)
    name = sorted(state)[len(state) // 2]
    save_file({key: value for key, value in state.items() if key != name}, path)
    assert f"missing {name}" in refused(folder)


def test_half_precision_is_what_the_whole_model_is_in(folders):
    model = registry.load(folders("smolvlm"), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    features = model.encode(torch.zeros(2, 64, 64, 3).byte(), torch.zeros(2).double())
    assert features.rows.dtype == torch.bfloat16
    memory = model.start(["how many?"], MemoryOptions(4, banks="visual", merge="frame"))
    model.observe(memory, features)
    assert memory.slots().rows.dtype == torch.float32
    assert model.generate(model.context(memory), ["how many?"], GREEDY)


class TestRoom:
    def test_it_says_how_many_slots_fit(self, models):
        for length in (60, 100, 2000):
            how = MemoryOptions(length, banks="visual", merge="frame")
            with pytest.raises(CapacityError, match="more than the 2048 tokens") as caught:
                models("smolvlm").check(["how many?"], how, GREEDY, 10_000)
            fits = int(caught.value.hint.rpartition(" ")[2])
            assert caught.value.message.startswith(f"{length + 1} slots of 16 tokens")
            models("smolvlm").check(["how many?"], replace(how, length=fits), GREEDY, 10_000)
            more = replace(how, length=fits + 1)
            with pytest.raises(CapacityError):
                models("smolvlm").check(["how many?"], more, GREEDY, 10_000)

    def test_what_is_said_to_fit_does(self, models, one_thread):
        model = models("internvl")
        with pytest.raises(CapacityError) as caught:
            model.check(["how many?"], MemoryOptions(500, banks="visual"), GREEDY, 1000)
        length = int(caught.value.hint.rpartition(" ")[2])
        how = MemoryOptions(length, banks="visual", merge="frame")
        model.check(["how many?"], how, GREEDY, 1000)
        number = length + 1
        memory = model.start(["how many?"], how)
        pixels = torch.zeros(number, 64, 64, 3).byte()
        model.observe(memory, model.encode(pixels, torch.arange(float(number)).double()))
        model.generate(model.context(memory), ["how many?"], GREEDY)

    def test_without_a_memory_it_names_one(self, models):
        how = MemoryOptions(0, banks="visual")
        with pytest.raises(CapacityError) as caught:
            models("smolvlm").check(["how many?"], how, GREEDY, 1000)
        assert "use a memory: --memory" in caught.value.hint

    def test_nothing_helps_a_long_answer(self, models):
        how = MemoryOptions(4, banks="visual")
        with pytest.raises(CapacityError, match="2048") as caught:
            models("smolvlm").check(["how many?"], how, Decoding(max_new_tokens=2048), 9)
        assert "--max-new-tokens" in caught.value.hint


@pytest.mark.parametrize(
    "size", [(1920, 1080), (1080, 1920), (160, 120), (64, 64), (4000, 100), (7, 3000), (320, 240)]
)
def test_frames_keep_their_shape_within_the_tokens_of_a_slot(models, size):
    adapter = models("qwen3_vl").adapter
    width, height = adapter.frame_size(*size)
    assert width % adapter.side == height % adapter.side == 0
    assert 1 <= width * height // adapter.side**2 <= qwen3_vl.MOST
    if max(size) < 20 * min(size):
        assert width / height == pytest.approx(size[0] / size[1], rel=0.15)
        assert width * height // adapter.side**2 >= qwen3_vl.FEWEST * 0.85
