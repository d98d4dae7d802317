"""The small vision-language model's sizes, its words, and what its parts say to each other.

A frame has CELLS tokens, a grid of GRID by GRID. What the projector learns to write into a cell is
the sum of the embeddings of the words that are true there, and the language model learns to read
such sums. Both hold on to the embeddings of the bundled `tiny`, whose language model reads sums
like these and is what this one begins with.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.checkpoints.state import write_state
from malmm_cli.datasets.synthetic import COLOURS, MOTIONS, SHAPES, words
from malmm_cli.datasets.synthetic.telling import NUMBERS as COUNTED
from malmm_cli.files.atomic import new_folder
from malmm_cli.hub import locate
from malmm_cli.models import registry
from malmm_cli.models.vlm import random_init
from malmm_cli.models.vlm.model import VisionLanguage

GRID = 2
CELLS = GRID**2
SIDE = 64  # pixels
PATCH = 8
IDLE = "nothing"
DIGITS = COUNTED[1:]  # that stand under shapes
FORM = (
    "User: You are provided the following series of frames from a video. Frame Describe Assistant"
)
NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
MORE = "sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four"
TIMES = [f"{number:02d}" for number in range(60)]
BEGINNINGS = ("Frame", "Assistant", "User", *TIMES)  # without a space before them


def new_model(folder: Path) -> VisionLanguage:
    """A model of which only the language is learnt, written to folder and loaded from there."""
    config = transformers.SmolVLMConfig(
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 8,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": False,
        },
        scale_factor=SIDE // PATCH // GRID,
        tie_word_embeddings=False,
    )
    known = {*words(), *FORM.split(), *NUMBERS.split(), *MORE.split(), *TIMES, IDLE}
    if not folder.exists():
        random_init.write(folder, config, known, bare=BEGINNINGS)
    model: Any = registry.load(folder)
    torch.manual_seed(0)
    model.net.init_weights()
    model.net.apply(model.net._init_weights)
    _take_over(registry.load(locate("tiny").folder), model)
    return model


@torch.no_grad()
def _take_over(teacher: Any, model: VisionLanguage) -> None:
    """Give model the layers of the teacher's language model, and its rows for pieces both know."""
    spoken = {
        name.removeprefix("model."): value
        for name, value in teacher.language_model.state_dict().items()
    }
    own = model.net.model.text_model
    of_layers = {k: v for k, v in spoken.items() if k.startswith(("layers.", "norm."))}
    own.load_state_dict(of_layers, strict=False)
    ids = teacher.texts.language.get_vocab()
    pieces = {piece.replace("▁", "Ġ"): number for piece, number in ids.items()}
    pairs = [(n, pieces[p]) for p, n in model.texts.tokenizer.get_vocab().items() if p in pieces]
    pairs.append((model.texts.end, teacher.texts.language.eos_token_id))
    here, there = map(list, zip(*pairs, strict=True))
    for name, matrix in (("embed_tokens", own.embed_tokens), ("lm_head", model.net.lm_head)):
        rows = spoken[f"{name}.weight"]
        matrix.weight.copy_(torch.randn(matrix.weight.shape) * rows.std())
        matrix.weight[here] = rows[there]


def meanings(model: VisionLanguage) -> dict[str, Tensor]:
    """What stands for each word in a cell, (C,); of a word with several tokens their mean."""
    embeddings = model.net.get_input_embeddings().weight.detach()
    told = {word for motion in MOTIONS for word in motion.split()}
    return {
        word: embeddings[model.texts.ids(f" {word}")].mean(0)
        for word in (*COLOURS, *SHAPES, "teal", *sorted(told), *DIGITS, IDLE)
    }


def export(model: VisionLanguage, untrained: Path, folder: Path, note: str) -> None:
    """Write the model's folder: the untrained one's files, and what was learnt in float16."""
    with new_folder(folder) as place:
        shutil.copytree(untrained, place, dirs_exist_ok=True)
        (place / "malmm.toml").write_text(note, encoding="utf-8")
        state = {name: value.half() for name, value in model.net.state_dict().items()}
        write_state(place, {name: value.contiguous() for name, value in state.items()})
