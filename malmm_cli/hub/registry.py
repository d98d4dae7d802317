"""The models with short names, and what is known of them before download."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DTYPE_BYTES", "KNOWN", "Known", "memory_needed"]

# Bytes per parameter.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Bytes that a parameter of a quantised language model takes, with the numbers that scale blocks
# and the embeddings, which stay as they are.
_QUANTIZED_BYTES = {"8bit": 1.1, "4bit": 0.7}

# Parameters of a published model besides its language model.
_BESIDE_LANGUAGE = 1_175_000_000


@dataclass(frozen=True)
class Known:
    """A model with a short name; `repository` is None for the one inside the package.

    `revision` is the Hub's commit where one is known from a public source, `stored` the number
    type of the published files, `parameters` None where they can be counted on this disk, and
    `model_type` that of the configuration, None where it can be read there.
    """

    name: str
    repository: str | None
    licence: str
    parameters: int | None
    stored: str
    revision: str | None = None
    model_type: str | None = None

    @property
    def download(self) -> int:
        """Approximate download size in bytes."""
        return (self.parameters or 0) * DTYPE_BYTES[self.stored]


_RESEARCH = "research only (LLaMA licence)"

# In order of preference: the first that fits a machine is recommended. Parameters were counted
# on models built without weights from the published configurations.
KNOWN = {
    known.name: known
    for known in (
        Known(
            "vicuna-7b",
            "Salesforce/instructblip-vicuna-7b",
            _RESEARCH,
            7_913_726_720,
            "float16",
            revision="19103d0c5b5263c8a7891012e08573439fb6607f",
            model_type="instructblip",
        ),
        Known(
            "vicuna-13b",
            "Salesforce/instructblip-vicuna-13b",
            _RESEARCH,
            14_192_093_952,
            "float16",
            model_type="instructblip",
        ),
        Known(
            "flan-t5-xl",
            "Salesforce/instructblip-flan-t5-xl",
            "MIT",
            4_022_969_088,
            "float32",
            revision="bf9bd58cb3bb06e88c03b80f9cc346b90094bc6d",
            model_type="instructblip",
        ),
        Known(
            "flan-t5-xxl",
            "Salesforce/instructblip-flan-t5-xxl",
            "MIT",
            12_310_119_168,
            "float32",
            model_type="instructblip",
        ),
        Known(
            "tiny",
            None,
            "MIT",
            None,
            "float16",
        ),
    )
}


def memory_needed(parameters: int, dtype: str, quantize: str | None = None) -> int:
    """Approximate bytes of memory for the weights."""
    if quantize is None:
        return parameters * DTYPE_BYTES[dtype]
    beside = min(_BESIDE_LANGUAGE, parameters // 2)
    return round(beside * DTYPE_BYTES[dtype] + (parameters - beside) * _QUANTIZED_BYTES[quantize])
