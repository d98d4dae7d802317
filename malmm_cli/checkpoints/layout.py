"""A model folder in the published layout, read and checked without torch.

    config.json                   which family
    model.safetensors             weights, or, where they are in several files,
    model.safetensors.index.json  the names of those files

Each error is one line and a hint, which depends on whether the folder came from the Hub.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

from msgspec import Meta, Struct

from malmm_cli.errors import ModelError
from malmm_cli.files.schema import SchemaError, checked
from malmm_cli.files.strict_json import NotJsonError, RefusedError, load

__all__ = [
    *("DERIVED", "FAMILIES", "INDEX", "TOKENIZERS", "WHOLE", "Stored"),
    *("check_regular", "copy_beside_weights", "deciding", "open_regular"),
    *("layout_of", "read_config", "read_header", "read_json", "remedy", "shards", "tensors_in"),
]

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


class Layout(NamedTuple):
    """What belongs to a model besides its own folder's files, and how it takes frames.

    `folders` are those inside its own, each with a tokenizer; `video_processor` is the class of
    transformers that scales the pixels of videos, and `reads_videos` says whether it does where no
    class is named. `quantized` is how the names of tensors begin that `--quantize` is about.
    """

    folders: tuple[str, ...]
    video_processor: str
    reads_videos: bool
    quantized: str = ""

    def quantizes(self, name: str, shape: Sequence[int]) -> bool:
        """Whether `--quantize` stores that tensor in fewer bits: linear layers but for the head."""
        linear = name.endswith(".weight") and len(shape) == 2 and not _WHOLE.search(name)
        return linear and name.startswith(self.quantized)


# What is never quantised: tables of words or positions, the head, and T5's second linear layers,
# which transformers keeps in float32.
_WHOLE = re.compile(r"(embed\w*|shared|lm_head|\.wo)\.weight$")

# The `model_type`s that can be loaded. The published Vicuna processors name the video classes by
# mistake; weights are the same.
FAMILIES = {
    "instructblip": Layout(
        ("qformer_tokenizer",), "InstructBlipVideoProcessor", False, "language_model."
    ),
    "instructblipvideo": Layout(
        ("qformer_tokenizer",), "InstructBlipVideoProcessor", True, "language_model."
    ),
    "qwen3_vl": Layout((), "Qwen3VLProcessor", True),
    "qwen3_5": Layout((), "Qwen3VLProcessor", True),
    "smolvlm": Layout((), "SmolVLMProcessor", True),
    "internvl": Layout((), "InternVLProcessor", True),
    "video_llama": Layout((), "Blip2Processor", False, "language_model."),
}

# What people call the ways to quantise, where `quant_method` is not spelled so.
_METHODS = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "gguf": "GGUF", "hqq": "HQQ"}

# A tokenizer needs one of these.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.txt")

# Stored by older versions of transformers; all follow from the configuration.
DERIVED = ("position_ids", "rotary_emb.inv_freq")

_SHARD = re.compile(r"[\w. -]+\.safetensors")
_CACHED = re.compile(r"/models--([^/]+)/snapshots/[^/]+(?:/[^/]+)?$")
# Bytes of JSON that are parsed: configurations, an index, the header of a file of weights. The
# largest published are a tenth of that.
_LARGEST_JSON = 16_000_000

# Bytes of a file beside the weights. Tokenizers of 262,144 words have 34 MB.
_LARGEST = 256_000_000

# Files that transformers may read from a folder.
_BESIDE = re.compile(
    r".*(config|token.*|vocab|chat_template)\.(json|txt|jinja)|merges\.txt|.*\.(model|tiktoken)"
)

# Bits of a number in a file of weights, by what the format calls the types that weights have.
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}


class _Index(Struct):
    """The index of several files of weights."""

    weight_map: Annotated[dict[str, str], Meta(min_length=1)]


_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Stored(Struct):
    """Header entry of a tensor in a file of weights; offsets are in bytes."""

    dtype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=8)]
    data_offsets: tuple[_Size, _Size]

    @property
    def numbers(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    def __post_init__(self) -> None:
        """Raise ValueError where the place in the file has another size than the tensor."""
        begin, end = self.data_offsets
        bits = _BITS.get(self.dtype)
        if bits is not None and end - begin != self.numbers * bits // 8:
            raise ValueError("data_offsets do not match the shape")


def remedy(folder: Path) -> str:
    """Return the hint for damaged or missing files of a folder."""
    repository = _repository(folder)
    if repository:
        return f"`malmm models pull {repository}` repairs it"
    return "copy the folder again, or use another one"


def _repository(folder: Path) -> str:
    """Return the repository id of a folder in the Hub cache, else an empty string."""
    found = _CACHED.search(folder.absolute().as_posix())
    return found[1].replace("--", "/") if found else ""


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json; ModelError if it is not of a known family, or of quantised weights."""
    content = read_json(folder / "config.json")
    where, kind = _repository(folder) or folder, content.get("model_type")
    if kind not in FAMILIES:
        near = "".join(f" ({x} is near)" for x in get_close_matches(str(kind), FAMILIES, n=1))
        raise ModelError(
            f"{where}: a model of {f'type {kind!r}' if kind else 'no type'} cannot be used; known: "
            f"{', '.join(FAMILIES)}",
            hint=f"use a model of a known type{near}; `malmm models` lists some",
        )
    for part in (content, *content.values()):
        told = part.get("quantization_config") if isinstance(part, dict) else None
        if told is not None:
            raise ModelError(
                f"{where}: its weights are quantized{_method(told)}, which is not supported",
                hint="use the float16, bfloat16 or float32 weights of the same model; --quantize "
                "makes them smaller",
            )
    return content


def _method(told: Any) -> str:
    """How weights were quantised, as people call it: " by GPTQ"."""
    name = told.get("quant_method") if isinstance(told, dict) else None
    if not isinstance(name, str):
        return ""
    return f" by {_METHODS.get(name.lower(), name[:40])}"


def layout_of(folder: Path) -> Layout:
    """The row of a folder's family; raises ModelError as `read_config` does."""
    return FAMILIES[read_config(folder)["model_type"]]


def deciding(folder: Path) -> list[str]:
    """Patterns of the files in a folder that decide what its model says."""
    inside = [f"{name}/*" for name in layout_of(folder).folders]
    return ["*.safetensors", "*.json", *inside, "tokenizer.model", "spiece.model", "merges.txt"]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in path; ModelError where there is none.

    Only a regular file of some MB is read. Numbers are finite, and duplicate keys are rejected.
    """
    text = ""
    try:
        with open_regular(path, _LARGEST_JSON) as file:
            text = file.read(_LARGEST_JSON).decode("utf-8")
        content = load(text, finite=True)
    except FileNotFoundError:
        hint = "give a folder with the files of a published model; `malmm models` lists some"
        if _repository(path.parent):
            hint = remedy(path.parent)
        elif (path.parent / "training").is_dir():
            hint = "training is not finished; rerun the same `malmm train` to resume it"
        raise ModelError(f"{path.parent}: {path.name} is missing", hint=hint) from None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise _unreadable(path, "not valid UTF-8") from error
    except NotJsonError as error:
        reason = "not valid JSON" if text.strip() else "the file is empty"
        raise _unreadable(path, reason) from error
    except RefusedError as error:
        raise _unreadable(path, str(error)) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: does not hold a JSON object", hint=remedy(path.parent))
    return content


@contextmanager
def open_regular(path: Path, largest: int | None = None) -> Iterator[BinaryIO]:
    """Open a file to read it; OSError for a pipe, device or folder, and for one that is too large.

    Opening a pipe would wait for its writer, and reading a device may never end.
    """

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if largest is not None and status.st_size > largest:
            size, most = status.st_size / 1e6, largest / 1e6
            reason = f"too large: {size:,.0f} MB, but the limit is {most:.0f} MB"
            raise OSError(errno.EFBIG, reason, str(path))
        yield file


def check_regular(folder: Path) -> None:
    """Raise ModelError for files that transformers may read and should not: see `open_regular`."""
    for path in sorted(folder.iterdir()):
        if _BESIDE.fullmatch(path.name) and not path.is_dir():
            try:
                with open_regular(path, _LARGEST):
                    pass
            except OSError as error:
                raise _unreadable(path, error.strerror or str(error)) from error


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path}: cannot be read: {reason}", hint=remedy(path.parent))


def shards(folder: Path) -> list[str]:
    """Return the names of the weight files; ModelError if any is missing."""
    names = _listed(folder) if os.path.lexists(folder / INDEX) else [WHOLE]
    missing = [name for name in names if not os.path.isfile(folder / name)]
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    if missing == [WHOLE] and pickles:
        raise ModelError(
            f"{folder}: has only pickles ({', '.join(pickles)}), which can run code",
            hint="only safetensors is supported: download the model's .safetensors files",
        )
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{folder}: weights are missing: {', '.join(missing[:3])}{more}", hint=remedy(folder)
        )
    return names


def _listed(folder: Path) -> list[str]:
    """Return the files listed in the index."""
    try:
        places = checked(read_json(folder / INDEX), _Index).weight_map
    except SchemaError as error:
        message = f"{folder / INDEX}: has no usable weight_map"
        raise ModelError(message, hint=remedy(folder)) from error
    names = sorted(set(places.values()))
    for name in names:
        if not _SHARD.fullmatch(name):
            raise ModelError(
                f"{folder / INDEX}: names {name!r}, which is not a weights file in this folder",
                hint="only .safetensors files in the folder itself are read",
            )
    return names


def copy_beside_weights(base: Path, folder: Path) -> None:
    """Copy a model's configuration and tokenizers, without its weights."""
    inside = layout_of(base).folders
    for path in (*base.iterdir(), *(path for name in inside for path in base.glob(f"{name}/*"))):
        # pickles of weights, links to devices and the like stay where they are
        if path.is_file() and not path.name.startswith("model") and path.stat().st_size <= _LARGEST:
            target = folder / path.relative_to(base)
            target.parent.mkdir(exist_ok=True)
            shutil.copy(path, target)


def read_header(path: Path) -> dict[str, Stored]:
    """Read the header of a weight file; ModelError if size or format is wrong."""
    try:
        tensors = tensors_in(path)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    for name, stored in tensors.items():
        if stored.dtype not in _BITS and not name.endswith(DERIVED):
            raise ModelError(
                f"{path}: holds {name} as {stored.dtype}; weights must be floating point",
                hint="use float16, bfloat16 or float32 weights; --quantize makes them smaller",
            )
    return tensors


def tensors_in(path: Path) -> dict[str, Stored]:
    """The tensors of any safetensors file; raises OSError, or ValueError for one not whole."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _LARGEST_JSON else b""
    if not size:
        raise ValueError("the file is empty")
    if text.startswith(b"{") and len(text) < length:
        raise ValueError("the file is truncated")
    try:
        content = checked(load(text, finite=True), dict[str, Any])
        content.pop("__metadata__", None)
        tensors = checked(content, dict[str, Stored])
    except RefusedError:
        raise
    except ValueError as error:
        raise ValueError("not a safetensors file") from error
    end = 0
    # the format's own rule: one tensor follows another
    for start, stop in sorted(tensor.data_offsets for tensor in tensors.values()):
        if start != end:
            raise ValueError("tensors overlap or leave gaps")
        end = stop
    end += 8 + length
    if size < end:
        raise ValueError("the file is truncated")
    if size > end:
        raise ValueError(f"{size - end} extra bytes at the end")
    return tensors
