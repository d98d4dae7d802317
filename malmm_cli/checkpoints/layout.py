"""A model folder in the published layout, read and checked without torch.

    config.json                   which family
    model.safetensors             weights, or, where they are in several files,
    model.safetensors.index.json  the names of those files

Each error is one line and a hint, which depends on whether the folder came from the Hub.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from malmm_cli.errors import ModelError

__all__ = [
    *("DERIVED", "FAMILIES", "INDEX", "TOKENIZERS", "WHOLE", "Stored"),
    *("check_regular", "copy_beside_weights", "deciding", "open_regular"),
    *("layout_of", "read_config", "read_header", "read_json", "remedy", "shards"),
]

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


class Layout(NamedTuple):
    """What belongs to a model besides its own folder's files, and how it takes frames.

    `folders` are those inside its own, each with a tokenizer; `video_processor` is the class of
    transformers that scales the pixels of videos, and `reads_videos` says whether it does where no
    class is named.
    """

    folders: tuple[str, ...]
    video_processor: str
    reads_videos: bool


# The `model_type`s that can be loaded. The published Vicuna processors name the video classes by
# mistake; weights are the same.
FAMILIES = {
    "instructblip": Layout(("qformer_tokenizer",), "InstructBlipVideoProcessor", False),
    "instructblipvideo": Layout(("qformer_tokenizer",), "InstructBlipVideoProcessor", True),
}

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
_MOST_AXES = 8


class Stored(NamedTuple):
    """Header entry of a tensor."""

    dtype: str
    numbers: int


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
    """Read config.json; ModelError if it is not of a known family."""
    content = read_json(folder / "config.json")
    kind = content.get("model_type")
    if kind not in FAMILIES:
        raise ModelError(
            f"{_repository(folder) or folder}: a model of {f'type {kind!r}' if kind else 'no type'}"
            f" cannot be used; known: {', '.join(FAMILIES)}",
            hint="use a model of a known type; `malmm models` lists some",
        )
    return content


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
        content = _parse(text)
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
    except _RefusedError as error:
        raise _unreadable(path, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _unreadable(
            path, "not valid JSON" if text.strip() else "the file is empty"
        ) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: does not hold a JSON object", hint=remedy(path.parent))
    return content


class _RefusedError(ValueError):
    """Valid JSON that malmm refuses."""


def _parse(text: str | bytes) -> Any:
    """`json.loads`, but for what JSON leaves open: numbers without an end, keys given twice."""

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise _RefusedError(f"{number[:20]} is not a finite number")
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, count in counts.items() if count > 1)
            raise _RefusedError(f"duplicate key {twice[:80]!r}")
        return content

    return json.loads(text, parse_float=finite, parse_constant=finite, object_pairs_hook=once)


@contextmanager
def open_regular(path: Path, largest: int | None = None) -> Iterator[BinaryIO]:
    """Open a file to read it; OSError for a pipe, device or folder, and for one that is too large.

    Opening a pipe would wait for its writer, and reading a device may never end.
    """

    def at_once(place: str, flags: int) -> int:
        return os.open(place, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=at_once) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if largest is not None and about.st_size > largest:
            size, most = about.st_size / 1e6, largest / 1e6
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
    places = read_json(folder / INDEX).get("weight_map")
    files = list(places.values()) if isinstance(places, dict) else []
    if not files or not all(isinstance(file, str) for file in files):
        raise ModelError(f"{folder / INDEX}: has no usable weight_map", hint=remedy(folder))
    names = sorted(set(files))
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
        tensors = _header(path)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    for name, (dtype, _) in tensors.items():
        if dtype not in _BITS and not name.endswith(DERIVED):
            raise ModelError(
                f"{path}: holds {name} as {dtype}; weights must be floating point",
                hint="use float16, bfloat16 or float32 weights; --quantize makes them smaller",
            )
    return tensors


def _header(path: Path) -> dict[str, Stored]:
    """Like `read_header`, but raises ValueError."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _LARGEST_JSON else b""
    if not size:
        raise ValueError("the file is empty")
    if text.startswith(b"{") and len(text) < length:
        raise ValueError("the file is truncated")
    try:
        content = _parse(text)
        content.pop("__metadata__", None)
        tensors = {name: _stored(about) for name, about in content.items()}
        places = sorted(about["data_offsets"] for about in content.values())
    except _RefusedError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        raise ValueError("not a safetensors file") from None
    end = 0
    for start, stop in places:  # the format's own rule: one tensor follows another
        if start != end:
            raise ValueError("tensors overlap or leave gaps")
        end = stop
    end += 8 + length
    if size < end:
        raise ValueError("the file is truncated")
    if size > end:
        raise ValueError(f"{size - end} extra bytes at the end")
    return tensors


def _stored(about: dict[str, Any]) -> Stored:
    """Parse the header entry of a tensor; ValueError if it is invalid."""
    dtype, shape, places = str(about["dtype"]), about["shape"], about["data_offsets"]
    if len(shape) > _MOST_AXES or len(places) != 2:
        raise ValueError
    if not all(type(n) is int and 0 <= n < 2**63 for n in (*shape, *places)):
        raise ValueError
    stored = Stored(dtype, math.prod(shape))
    bits = _BITS.get(dtype)
    if bits is not None and places[1] - places[0] != stored.numbers * bits // 8:
        raise ValueError
    return stored
