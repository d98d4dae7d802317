"""The small model's sizes, and what its parts are trained to say to each other.

The Q-Former's tokens are a timeline: as many windows of time as the position table has rows, each
told as the sum of its words' embeddings, two windows to a token. The language model learns to read
timelines made of words; the Q-Former, later, to write them from what it sees.
"""

import shutil
from pathlib import Path

import torch
import transformers
from torch import Tensor

from malmm_cli.checkpoints.state import write_state
from malmm_cli.datasets.synthetic import Scene, words
from malmm_cli.files.atomic import new_folder
from malmm_cli.models import registry
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.models.instructblip.random_init import write

TOKENS = 32  # query tokens
WINDOWS = 2 * TOKENS  # of time, and rows of the position table
QUIET = 0.2  # what a frame without a shape weighs among others: short events are to be heard
IDLE = "nothing"


def new_model(folder: Path, layers: int = 6) -> InstructBlip:
    """An untrained model of the small one's form, written to folder and loaded from there.

    `layers` are those of the language model.
    """
    config = transformers.InstructBlipConfig(
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 8,
        },
        qformer_config={
            "vocab_size": 8,
            "hidden_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 288,
            "max_position_embeddings": 128,
            "encoder_hidden_size": 96,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": 8,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "max_position_embeddings": 4096,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
        },
        num_query_tokens=TOKENS,
    )
    write(folder, config, words(), positions=WINDOWS, dtype=torch.float32)
    return registry.load(folder)


def deepen(shallow: InstructBlip, deep: InstructBlip) -> None:
    """Give deep's language model what shallow's has learnt; it says the same at first.

    Layers that are new stand in the middle and add nothing until they learn.
    """
    parts = shallow.language_model.state_dict()
    old, new = (len(model.language_model.model.layers) for model in (shallow, deep))
    half = old // 2
    for name, value in deep.language_model.state_dict().items():
        words = name.split(".")
        if words[1] == "layers":
            layer = int(words[2])
            if half <= layer < half + new - old:
                if words[-2] in ("o_proj", "down_proj"):
                    value.zero_()
                continue
            words[2] = str(layer if layer < half else layer - (new - old))
        value.copy_(parts[".".join(words)])


def vocabulary(model: InstructBlip) -> tuple[list[int], dict[str, int]]:
    """The language model's ids of words and their beginnings, and the place of each among them."""
    pieces = model.texts.language.get_vocab()
    number = {piece.removeprefix("▁"): i for piece, i in pieces.items() if piece[0] == "▁"}
    ids = sorted(number.values())
    return ids, {word: ids.index(i) for word, i in number.items()}


def spread(frames: int) -> Tensor:
    """How much of each frame lies in each window, (frames, WINDOWS); as the position table has it.

    Up to WINDOWS frames have one window each; more are stretched over all of them.
    """
    if frames <= WINDOWS:
        return torch.eye(frames, WINDOWS)
    place = torch.arange(frames) * (WINDOWS - 1) / (frames - 1)
    below = place.floor().long().clamp(max=WINDOWS - 2)
    share = (place - below)[:, None]
    rows = torch.eye(WINDOWS)
    return rows[below] * (1 - share) + rows[below + 1] * share


def words_shown(scene: Scene, seconds: Tensor, number: dict[str, int]) -> Tensor:
    """Which words are true of the frames at `seconds` (T,): (T, words) of 0 and 1.

    `number` gives each word its column.
    """
    frames = torch.zeros(len(seconds), len(number))
    frames[:, number[IDLE]] = 1.0
    for event in scene.events:
        during = (seconds >= event.start) & (seconds < event.end)
        told = torch.zeros(len(number))
        told[[number[word] for word in str(event).split()]] = 1.0
        frames[during] = told
    return frames


def timeline(frames: Tensor, number: dict[str, int]) -> Tensor:
    """What a perfect reader of frames (T, words) tells: (WINDOWS, words), weighted means."""
    idle = torch.zeros(len(number))
    idle[number[IDLE]] = 1.0
    weight = torch.where(frames[:, number[IDLE]] > 0, QUIET, 1.0)
    share = spread(len(frames)).T * weight
    total = share.sum(1, keepdim=True)
    return torch.where(total > 0, share @ frames / total.clamp(min=1e-6), idle)


def spoken(timelines: Tensor, rows: Tensor) -> Tensor:
    """Timelines (B, WINDOWS, words) as tokens (B, TOKENS, C); rows (words, C) are embeddings.

    A token is the sum of two windows, the second turned by a right angle in each of C/2 planes.
    """
    first, second = (timelines @ rows).unflatten(1, (TOKENS, 2)).unbind(2)
    even, odd = second.chunk(2, dim=-1)
    return first + torch.cat([-odd, even], dim=-1)


ORIGIN = """\
# Where the model comes from; copied to every model trained from this one.
note = "trained on `malmm synth` videos only; it knows nothing else"
world = "drawings"
"""


def export(model: InstructBlip, untrained: Path, folder: Path) -> None:
    """Write the model's folder: the untrained one's files, and what was learnt in float16."""
    with new_folder(folder) as place:
        shutil.copytree(untrained, place, dirs_exist_ok=True)
        (place / "malmm.toml").write_text(ORIGIN, encoding="utf-8")
        state = {name: value.half() for name, value in model.state_dict().items()}
        write_state(place, {name: value.contiguous() for name, value in state.items()})
