"""Reference cases of Video-LLaMA: what the authors' own code gave on tiny random weights.

They come from the folder `$MALMM_GOLDEN`, or from tests/golden/video_llama where that is not set.
What a file is for follows from the tensors it holds, never from its name.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from malmm_cli.models.video_llama.config import Configuration
from malmm_cli.models.video_llama.load import build, read_texts
from malmm_cli.models.video_llama.model import VideoLlama
from malmm_cli.models.video_llama.names import rename

FOLDER = Path(
    os.environ.get("MALMM_GOLDEN") or Path(__file__).parents[1] / "golden" / "video_llama"
)
INDEXES = ("description.json", "index.json", "golden.json")
TOLERANCE = 5e-5

# What the names of a file's tensors say of it.
FORMS: dict[str, Callable[[set[str]], bool]] = {
    "weights": lambda names: "video_query_tokens" in names,
    "language": lambda names: "model.embed_tokens.weight" in names,
    "vision": lambda names: {"pixels_bcthw", "inputs_llama"} <= names,
    "features": lambda names: {"image_embeds", "inputs_llama"} <= names,
    "audio": lambda names: {"audio_position_added", "inputs_llama"} <= names,
    "clips": lambda names: "embedding_normalised_x20" in names,
    "sound": lambda names: {"waveform_int16", "mel"} <= names,
    "imagebind": lambda names: "modality_preprocessors.audio.cls_token" in names,
    "frames": lambda names: {"frames_uint8_btchw", "embedding_normalised"} <= names,
    "media": lambda names: {"frames_uint8_cthw", "image_uint8_hwc"} <= names,
    "conversation": lambda names: {"media_0", "turn0_inputs_embeds"} <= names,
}


@cache
def index() -> dict[str, Any]:
    """What the folder says of its files."""
    found = [FOLDER / name for name in INDEXES if (FOLDER / name).is_file()]
    assert found, f"{FOLDER} holds none of {', '.join(INDEXES)}"
    return json.loads(found[0].read_text("utf-8"))


@cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / name)


@cache
def files(form: str) -> list[str]:
    """Names of the files of a form; none is a failure."""
    found = []
    for path in sorted(FOLDER.glob("*.safetensors")):
        with safe_open(path, "pt") as opened:
            if FORMS[form](set(opened.keys())):
                found.append(path.name)
    assert found, f"{FOLDER} holds no file of the form {form!r}"
    return found


def only(form: str) -> dict[str, Tensor]:
    """The tensors of the one file of a form."""
    (name,) = files(form)
    return tensors(name)


def conversations() -> list[tuple[str, str]]:
    """(case, file) of each conversation that is described; none is a failure."""
    found = [(name, _file_of(case)) for name, case in index()["e2e"].items()]
    assert found, f"{FOLDER} describes no conversation"
    return found


def _file_of(case: dict[str, Any]) -> str:
    """The one file whose first greedy steps are those of the case, in all turns."""

    def matches(stored: dict[str, Tensor]) -> bool:
        for number, turn in enumerate(case["turns"]):
            scores, embeds = (
                stored.get(f"turn{number}_{name}") for name in ("step_scores", "inputs_embeds")
            )
            if scores is None or embeds is None or embeds.shape[1] != turn["inputs_embeds_len"]:
                return False
            if scores.argmax(-1).tolist() != turn["greedy_ids"][: len(scores)]:
                return False
        return True

    (name,) = (file for file in files("conversation") if matches(tensors(file)))
    return name


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def configuration(conversation: str) -> Configuration:
    """The reference's sizes, from its description."""
    said = index()["config"]
    qformer = {
        "hidden_size": said["qf_dim"],
        "num_attention_heads": said["qf_heads"],
        "intermediate_size": said["qf_inter"],
    }
    reader = {**qformer, "num_hidden_layers": 2, "cross_attention_frequency": 1}
    weights = only("weights")
    patch = weights["visual_encoder.patch_embed.proj.weight"].shape[-1]
    return Configuration.from_dict(
        {
            "conversation": conversation,
            "vision_config": {
                "hidden_size": said["vit_dim"],
                "intermediate_size": len(weights["visual_encoder.blocks.0.mlp.fc1.bias"]),
                "num_hidden_layers": said["vit_depth"],
                "num_attention_heads": said["vit_heads"],
                "image_size": said["img"],
                "patch_size": patch,
            },
            "qformer_config": {
                **qformer,
                "num_hidden_layers": said["qf_layers"],
                "encoder_hidden_size": said["vit_dim"],
            },
            "video_qformer_config": {**reader, "encoder_hidden_size": said["qf_dim"]},
            "audio_qformer_config": {**reader, "encoder_hidden_size": said["a_out"]},
            "text_config": {
                name: value
                for name, value in index()["llama_config"].items()
                if name not in ("architectures", "torch_dtype", "transformers_version")
            },
            "query_tokens": said["nq"],
            "video_query_tokens": said["vq"],
            "audio_query_tokens": said["aq"],
            "frame_positions": said["max_frame_pos"],
            "clip_positions": len(weights["audio_position_embedding.weight"]),
        }
    )


def state() -> dict[str, Tensor]:
    """All of the reference's parameters by our names."""
    language = {f"llama_model.{name}": value for name, value in only("language").items()}
    return rename({**only("weights"), **language})


@cache
def model(conversation: str = "llama-2") -> VideoLlama:
    """The reference's weights and tokenizer in our model."""
    config = configuration(conversation)
    (path,) = FOLDER.rglob("*.model")  # sentencepiece's own ending
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, Path(folder, "tokenizer.model"))
        Path(folder, "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
        texts = read_texts(Path(folder), config)
    return build(config, state(), texts)
