"""Small models in exactly the form of the published repositories, for a server to serve."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from malmm_cli.models.instructblip import random_init
from malmm_cli.models.vlm import random_init as vlm_init

VICUNA = "Salesforce/instructblip-vicuna-7b"
FLAN_T5 = "Salesforce/instructblip-flan-t5-xl"
SMALL = "someone/small"

WORDS = "a what does the video describe red green blue circle square moves left right".split()

# What lies beside the wanted files and must stay there.
NEVER = (
    *("README.md", ".gitattributes", "modeling_custom.py", "model.fp16.safetensors"),
    *("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json", "tokenizer.py"),
    *("qformer_tokenizer/tokenization.py", "model.safetensors"),
)


def publish(root: Path, repository: str) -> Path:
    """Write the small model of that repository: Vicuna as of old, Flan-T5 as of late.

    Old: `image_token_index`, the video classes named by mistake, float16. New: `image_token_id`,
    float32. Both in shards with an index, with a pickle and program text beside them.
    """
    folder = root / repository
    old = repository == VICUNA
    random_init.write(
        folder,
        random_init.tiny_config("vicuna" if old else "flan-t5"),
        WORDS,
        seed=3,
        dtype=torch.float16 if old else torch.float32,
        max_shard_size="1MB" if old else "2MB",
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config.pop("image_token_index", None)
    config.pop("image_token_id", None)
    config |= {"image_token_index": 32001} if old else {"image_token_id": 32100}
    if old:
        config["architectures"] = ["InstructBlipVideoForConditionalGeneration"]
        config["model_type"] = "instructblipvideo"
    kind = "InstructBlipVideoProcessor" if old else "InstructBlipProcessor"
    contents = {
        "config.json": config,
        "processor_config.json": {"processor_class": kind, "num_query_tokens": 8},
        "generation_config.json": {"_from_model_config": True},
        "special_tokens_map.json": {},
        "qformer_tokenizer/special_tokens_map.json": {},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2), "utf-8")
    for name in NEVER:
        (folder / name).write_bytes(pickle.dumps("this must not be fetched"))
    return folder


def publish_vlm(root: Path, repository: str, architecture: str) -> Path:
    """Write a tiny vision-language model with the files that such repositories have on the Hub.

    Qwen3.5's has its shards' own names, with an index, and tensors that no class reads.
    """
    folder = root / repository
    vlm_init.write(folder, vlm_init.tiny_config(architecture), WORDS)
    words = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]
    contents = {
        "generation_config.json": {"max_new_tokens": 5},
        "processor_config.json": {},
        "video_preprocessor_config.json": json.loads(
            (folder / "preprocessor_config.json").read_text("utf-8")
        ),
        "vocab.json": words["vocab"],
        "added_tokens.json": {},
        "special_tokens_map.json": {},
        "chat_template.json": {"chat_template": (folder / "chat_template.jinja").read_text()},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n")
    unwanted = [name for name in NEVER if "qformer" not in name and name != "model.safetensors"]
    for name in unwanted:
        (folder / name).write_bytes(pickle.dumps("this must not be fetched"))
    if architecture == "qwen3_5":
        state = load_file(folder / "model.safetensors") | {"mtp.fc.weight": torch.ones(2, 2)}
        (folder / "model.safetensors").unlink()
        shard = "model.safetensors-00001-of-00001.safetensors"
        save_file(state, folder / shard)
        index = {"metadata": {}, "weight_map": dict.fromkeys(state, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return folder


def publish_small(root: Path) -> Path:
    """Write a repository of few files, whose weights belong to no model: 2.5 MB of noise."""
    folder = root / SMALL
    for name in ("config.json", "tokenizer.json", "qformer_tokenizer/tokenizer.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = {"model_type": "instructblip"} if name == "config.json" else {"name": name}
        (folder / name).write_text(json.dumps(content), "utf-8")
    noise = torch.rand((1_250_000,), generator=torch.Generator().manual_seed(1))
    save_file({"noise": noise.half()}, folder / "model.safetensors")
    return folder
