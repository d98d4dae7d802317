"""The small vision-language model's sizes, its words, and what its parts say to each other.

A frame has CELLS tokens, a grid of GRID by GRID. What the projector learns to write into a cell is
the sum of the embeddings of the words that are true there, and the language model learns to read
such sums: both hold on to the same embeddings, which are drawn once and never learnt.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.checkpoints.state import write_state
from malmm_cli.datasets.synthetic import COLOURS, MOTIONS, SHAPES, words
from malmm_cli.files.atomic import new_folder
from malmm_cli.models import registry
from malmm_cli.models.vlm import random_init
from malmm_cli.models.vlm.model import VisionLanguage

GRID = 4
CELLS = GRID**2
SIDE = 64  # pixels
EMBEDDED = 0.3  # spread of an embedding's numbers
IDLE = "nothing"
FORM = (
    "User: You are provided the following series of frames from a video. Frame Describe Assistant"
)
NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
MORE = "sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four"


def new_model(folder: Path, layers: int = 6) -> VisionLanguage:
    """An untrained model, written to folder and loaded from there; `layers` of language."""
    config = transformers.SmolVLMConfig(
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 8,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 8,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
        },
        scale_factor=2,
        tie_word_embeddings=True,
    )
    known = {*words(), *FORM.split(), *NUMBERS.split(), *MORE.split(), IDLE}
    if not folder.exists():
        random_init.write(folder, config, known)
    model: Any = registry.load(folder)
    torch.manual_seed(0)
    model.net.init_weights()
    model.net.apply(model.net._init_weights)
    embeddings = model.net.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(1)
    embeddings.data = torch.randn(embeddings.shape, generator=generator) * EMBEDDED
    model.net.tie_weights()
    return model


def meanings(model: VisionLanguage) -> dict[str, Tensor]:
    """What stands for each word in a cell, (C,); of a word with several tokens their mean."""
    embeddings = model.net.get_input_embeddings().weight.detach()
    told = {word for motion in MOTIONS for word in motion.split()}
    return {
        word: embeddings[model.texts.ids(f" {word}")].mean(0)
        for word in (*COLOURS, *SHAPES, "teal", *sorted(told), IDLE)
    }


def export(model: VisionLanguage, untrained: Path, folder: Path, note: str) -> None:
    """Write the model's folder: the untrained one's files, and what was learnt in float16."""
    with new_folder(folder) as place:
        shutil.copytree(untrained, place, dirs_exist_ok=True)
        (place / "malmm.toml").write_text(note, encoding="utf-8")
        state = {name: value.half() for name, value in model.net.state_dict().items()}
        state.pop("lm_head.weight")  # it is the embeddings
        write_state(place, {name: value.contiguous() for name, value in state.items()})
