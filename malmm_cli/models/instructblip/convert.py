"""The authors' checkpoints (LAVIS parameter names) → folders that we load.

Renaming is pure and idempotent: names that are ours already pass through, so converting what was
converted changes nothing.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from malmm_cli.checkpoints.layout import copy_beside_weights, read_config, read_header
from malmm_cli.checkpoints.state import check, read_state, write_state, wrong_shapes
from malmm_cli.errors import ModelError, first_line
from malmm_cli.models.instructblip.load import check_state

__all__ = ["Converted", "convert", "lay_over", "listed", "read_checkpoint", "rename"]

# Buffers that older versions stored, which follow from the configuration, and second names of T5's
# `shared`.
_DROPPED = re.compile(
    r"(^|\.)(position_ids|rotary_emb\.inv_freq)$"
    r"|^(t5_model|language_model)\.(encoder|decoder)\.embed_tokens\.weight$"
)

_BLOCK = r"^visual_encoder\.blocks\.(\d+)\."
_LAYER = r"^Qformer\.bert\.encoder\.layer\.(\d+)\."
_RENAMED = [
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (_BLOCK + r"norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (_BLOCK + r"attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (_BLOCK + r"attn\.proj\.", r"vision_model.encoder.layers.\1.self_attn.projection."),
    (_BLOCK + r"mlp\.", r"vision_model.encoder.layers.\1.mlp."),
    (r"^ln_vision\.", "vision_model.post_layernorm."),
    (r"^Qformer\.bert\.embeddings\.LayerNorm\.", "qformer.embeddings.layernorm."),
    (r"^Qformer\.bert\.embeddings\.", "qformer.embeddings."),
    (
        _LAYER + r"(attention|crossattention)\.self\.",
        r"qformer.encoder.layer.\1.\2.attention.",
    ),
    (_LAYER, r"qformer.encoder.layer.\1."),
    (r"^(llm|t5)_proj\.", "language_projection."),
    (r"^(llm|t5)_model\.", "language_model."),
    (r"^image_pe\.", "position_embedding."),
]
_QKV_PARTS = re.compile(_BLOCK + r"attn\.(q_bias|v_bias)$")


# What a checkpoint holds as a whole or not at all; a name belongs to the first that it begins with.
_PARTS = (
    *("vision_model.post_layernorm", "vision_model", "qformer", "query_tokens"),
    *("language_projection", "language_model"),
)
_TABLE = "position_embedding.weight"

_BASE = "check that --base is the model the checkpoint was trained from"
_ANOTHER = "use another checkpoint, or save this one again"
_SMALL = 2**24  # bytes that a tensor may have though its file is smaller: a view repeats numbers
_NUMBERS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint.

    `taken` counts its tensors; `kept` those of the base, by the parts of the model that they are
    all of; `positions` are the rows of the position table, 0 where neither of the two has one.
    """

    taken: int
    kept: dict[str, int]
    positions: int


def convert(checkpoint: Path, base: Path, folder: Path) -> Converted:
    """Lay a checkpoint over the model in `base`, and write the whole into the new `folder`.

    Configuration and tokenizers are those of base. A checkpoint may hold everything, or trained
    parameters alone, but each part of the model whole or not at all. Raises ModelError, naming
    them, for tensors that are missing, that base does not know or that do not fit its
    configuration; MA-LMM's position table is its own and always taken.
    """
    return lay_over(read_checkpoint(checkpoint), base, folder, where=f"{checkpoint} over {base}")


def lay_over(laid: Mapping[str, Tensor], base: Path, folder: Path, *, where: str) -> Converted:
    """`convert` for tensors that were read and renamed already."""
    read_config(base)  # that base is of another kind says more than that no tensor fits
    state = rename(read_state(base), where=str(base))
    unknown = laid.keys() - state.keys() - {_TABLE}
    shapes = {name: value.shape for name, value in state.items() if name != _TABLE}
    check((), unknown, wrong_shapes(laid, shapes), where, hint=_BASE, most=len(unknown))
    _check_parts(laid, state, where)
    whole = {**state, **laid}
    check_state(whole, base, where=where, hint=_BASE)
    _check_numbers(whole, where)
    copy_beside_weights(base, folder)
    write_state(folder, whole)
    return Converted(
        taken=len(laid),
        kept=_gathered(state.keys() - laid.keys(), state.keys()),
        positions=len(whole[_TABLE]) if _TABLE in whole else 0,
    )


def _check_parts(laid: Mapping[str, Tensor], state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelError for a part of the model of which laid has something, but not all."""

    def part_of(name: str) -> str:
        return next((part for part in _PARTS if name.startswith(part)), name)

    for part in dict.fromkeys(map(part_of, laid)):
        expected = {name for name in state if part_of(name) == part}
        if missing := expected - laid.keys():
            names = ", ".join(listed(_gathered(missing, state.keys())))
            raise ModelError(
                f"{where}: the checkpoint has {len(expected - missing)} of the {len(expected)} "
                f"tensors of {part}; missing {names}",
                hint="a part must be complete or absent; check that --base is the model the "
                "checkpoint was trained from",
            )


def _check_numbers(state: Mapping[str, Tensor], where: str) -> None:
    """Raise ModelError for tensors that hold no numbers to compute with."""
    for name, value in state.items():
        if value.dtype not in _NUMBERS:
            raise ModelError(
                f"{where}: {name} is {str(value.dtype).removeprefix('torch.')}",
                hint="weights must be floating point: use a checkpoint that is not quantized",
            )
    if broken := {name for name, value in state.items() if not value.float().isfinite().all()}:
        names = ", ".join(listed(_gathered(broken, state.keys())))
        raise ModelError(f"{where}: NaN or infinite values in {names}", hint=_ANOTHER)


def listed(parts: Mapping[str, int]) -> list[str]:
    """Names of tensors and of parts, these with how many they have."""
    return [name if count == 1 else f"{name} ({count} tensors)" for name, count in parts.items()]


def _gathered(names: Set[str], known: Set[str]) -> dict[str, int]:
    """How many of names lie under each name that stands for some of them and no other known one."""
    found: dict[str, list[str]] = {}
    others = {prefix for name in known - names for prefix in _prefixes(name)}
    for name in sorted(names):
        found.setdefault(next(p for p in _prefixes(name) if p not in others), []).append(name)
    return {part if len(under) > 1 else under[0]: len(under) for part, under in found.items()}


def _prefixes(name: str) -> list[str]:
    """a.b.c → a, a.b, a.b.c."""
    return list(accumulate(name.split("."), "{}.{}".format))


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file, by our names; raises ModelError."""
    content = _unpickled(path) if path.suffix != ".safetensors" else _loaded(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ModelError(
            f"{path}: has no state dict, at the top level or under 'model'",
            hint="use a .pth of the authors' training code, with {'model': {name: tensor}}",
        )
    most = max(path.stat().st_size, _SMALL)
    for name, value in state.items():
        if fault := _fault(value, most):
            raise ModelError(f"{path}: {name} {fault}", hint=_ANOTHER)
    renamed = rename({name: value.detach() for name, value in state.items()}, where=str(path))
    if not renamed:
        raise ModelError(f"{path}: contains no tensors", hint=_ANOTHER)
    return renamed


def _fault(value: Tensor, most: int) -> str:
    """What is wrong with a tensor of a file that holds at most so many bytes of numbers."""
    if value.is_meta:
        return "is on the meta device and has no data"
    if value.is_nested or value.layout != torch.strided:
        kind = "nested" if value.is_nested else str(value.layout).removeprefix("torch.")
        return f"is a {kind} tensor; weights must be dense"
    if value.is_quantized:
        return f"is quantized ({str(value.dtype).removeprefix('torch.')})"
    if value.nbytes > most:
        return f"has the shape {tuple(value.shape)}, which is larger than the file"
    return ""


def _loaded(path: Path) -> Any:
    read_header(path)  # tells what is wrong in words for people
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read: {first_line(error)}", hint=_ANOTHER) from error


def _unpickled(path: Path) -> Any:
    """What a .pth file holds, unpickled with weights only: no code can run."""
    try:
        mapped = zipfile.is_zipfile(path)  # what older versions of torch wrote is not
        with path.open("rb") as file:
            start = file.read(4)
        if mapped and _is_packed(path):
            raise ModelError(
                f"{path}: is a compressed archive, which torch.save does not write",
                hint="unzip it, zip it again without compression (zip -0), or save it again",
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, which fail just below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except ModelError:
        raise
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise ModelError(f"{path}: cannot be read: {reason}", hint=_ANOTHER) from error
    except Exception as error:  # torch raises all kinds on files that are something else
        if isinstance(error, pickle.UnpicklingError) and (
            "GLOBAL" in str(error) or start.startswith(b"\x80")
        ):
            raise ModelError(
                f"{path}: contains more than tensors and could run code",
                hint="only files that torch.load reads with weights_only=True are supported",
            ) from error
        if not start or (start == b"PK\3\4" and not mapped):
            raise ModelError(
                f"{path}: is {'cut off or damaged' if start else 'empty'}",
                hint="copy the file again",
            ) from error
        raise ModelError(
            f"{path}: is not a checkpoint",
            hint="use a .pth or .safetensors file written by torch.save or safetensors",
        ) from error


def _is_packed(path: Path) -> bool:
    """Whether something in an archive may be larger than it is on the disk."""
    with zipfile.ZipFile(path) as archive:
        return any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())


def rename(state: Mapping[str, Tensor], *, where: str = "state dict") -> dict[str, Tensor]:
    """State dict of LAVIS names, whole or of trained parameters alone, to one of our names.

    The encoder's separate query and value biases become one of query, key (always zero) and value;
    ModelError where there is only one of the two.
    """
    renamed = {}
    for name, value in state.items():
        if _DROPPED.search(name):
            continue
        part = _QKV_PARTS.match(name)
        if part is None:
            renamed[_rename_one(name)] = value
            continue
        kind, other = part[2], {"q_bias": "v_bias", "v_bias": "q_bias"}[part[2]]
        beside = state.get(name.removesuffix(kind) + other)
        if beside is None:
            raise ModelError(f"{where}: has {name} without {other}", hint=_ANOTHER)
        if value.dim() != 1 or value.shape != beside.shape or value.dtype not in _NUMBERS:
            raise ModelError(
                f"{where}: {name} must be a floating point vector as long as {other}, but "
                f"is {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}",
                hint=_ANOTHER,
            )
        if kind == "q_bias":
            bias = torch.cat([value, torch.zeros_like(value), beside])
            renamed[f"vision_model.encoder.layers.{part[1]}.self_attn.qkv.bias"] = bias
    return renamed


def _rename_one(name: str) -> str:
    for pattern, replacement in _RENAMED:
        new, found = re.subn(pattern, replacement, name)
        if found:
            return new
    return name
