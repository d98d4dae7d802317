"""The models with short names, and what is known of them before download."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT", "FORMS", "KNOWN", "Known", "memory_by_form", "memory_needed"]

# The model where none is chosen.
DEFAULT = "vicuna-7b"

# Bytes per parameter.
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

# Bytes that a parameter takes once it is quantised, with the numbers that scale rows or blocks.
_QUANTIZED_BYTES = {"8bit": 1.05, "4bit": 0.6}

# Number types, and those with quantised layers, from the best to the smallest: dtype and bits.
FORMS: dict[str, tuple[str, str | None]] = {
    **{dtype: (dtype, None) for dtype in _DTYPE_BYTES},
    **{bits: ("float16", bits) for bits in _QUANTIZED_BYTES},
}


@dataclass(frozen=True)
class Known:
    """A model with a short name; `repository` is None for the one inside the package.

    `revision` is the Hub's commit where one is known from a public source, `stored` the number
    type of the published files, `parameters` None where they can be counted on this disk, `whole`
    how many of them are not quantised when the model is, and `model_type` that of the
    configuration, None where it can be read there.
    """

    name: str
    repository: str | None
    licence: str
    parameters: int | None
    stored: str
    whole: int = 0
    revision: str | None = None
    model_type: str | None = None

    @property
    def download(self) -> int:
        """Approximate download size in bytes."""
        return (self.parameters or 0) * _DTYPE_BYTES[self.stored]


_RESEARCH = "research only (LLaMA licence)"
_CARD = "see its card (several licences)"

# As people see them: the newer ones first. Parameters were counted on models built without weights
# from the published configurations.
KNOWN = {
    known.name: known
    for known in (
        Known(
            "qwen3-vl-2b",
            "Qwen/Qwen3-VL-2B-Instruct",
            "Apache-2.0",
            2_127_532_032,
            "bfloat16",
            315_592_704,
            model_type="qwen3_vl",
        ),
        Known(
            "qwen3-vl-4b",
            "Qwen/Qwen3-VL-4B-Instruct",
            "Apache-2.0",
            4_437_815_808,
            "bfloat16",
            393_458_176,
            model_type="qwen3_vl",
        ),
        Known(
            "qwen3-vl-8b",
            "Qwen/Qwen3-VL-8B-Instruct",
            "Apache-2.0",
            8_767_123_696,
            "bfloat16",
            1_249_853_680,
            model_type="qwen3_vl",
        ),
        Known(
            "qwen3.5-0.8b",
            "Qwen/Qwen3.5-0.8B",
            "Apache-2.0",
            852_985_920,
            "bfloat16",
            257_853_504,
            model_type="qwen3_5",
        ),
        Known(
            "qwen3.5-2b",
            "Qwen/Qwen3.5-2B",
            "Apache-2.0",
            2_213_241_664,
            "bfloat16",
            513_368_896,
            model_type="qwen3_5",
        ),
        Known(
            "qwen3.5-4b",
            "Qwen/Qwen3.5-4B",
            "Apache-2.0",
            4_539_265_536,
            "bfloat16",
            640_922_112,
            model_type="qwen3_5",
        ),
        Known(
            "smolvlm2-256m",
            "HuggingFaceTB/SmolVLM2-256M-Video-Instruct",
            "Apache-2.0",
            256_484_928,
            "float32",
            58_304_064,
            model_type="smolvlm",
        ),
        Known(
            "smolvlm2-500m",
            "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
            "Apache-2.0",
            507_482_304,
            "float32",
            96_178_368,
            model_type="smolvlm",
        ),
        Known(
            "smolvlm2-2.2b",
            "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
            "Apache-2.0",
            2_246_784_880,
            "float32",
            203_868_016,
            model_type="smolvlm",
        ),
        Known(
            "internvl3-1b",
            "OpenGVLab/InternVL3-1B-hf",
            _CARD,
            938_193_024,
            "bfloat16",
            273_903_744,
            model_type="internvl",
        ),
        Known(
            "internvl3-2b",
            "OpenGVLab/InternVL3-2B-hf",
            _CARD,
            2_088_957_440,
            "bfloat16",
            468_121_088,
            model_type="internvl",
        ),
        Known(
            "internvl3-8b",
            "OpenGVLab/InternVL3-8B-hf",
            _CARD,
            7_944_373_760,
            "bfloat16",
            1_089_570_304,
            model_type="internvl",
        ),
        Known(
            "vicuna-7b",
            "Salesforce/instructblip-vicuna-7b",
            _RESEARCH,
            7_913_726_720,
            "float16",
            1_437_721_344,
            revision="19103d0c5b5263c8a7891012e08573439fb6607f",
            model_type="instructblip",
        ),
        Known(
            "vicuna-13b",
            "Salesforce/instructblip-vicuna-13b",
            _RESEARCH,
            14_192_093_952,
            "float16",
            1_504_324_352,
            model_type="instructblip",
        ),
        Known(
            "flan-t5-xl",
            "Salesforce/instructblip-flan-t5-xl",
            "MIT",
            4_022_969_088,
            "float32",
            1_808_374_528,
            revision="bf9bd58cb3bb06e88c03b80f9cc346b90094bc6d",
            model_type="instructblip",
        ),
        Known(
            "flan-t5-xxl",
            "Salesforce/instructblip-flan-t5-xxl",
            "MIT",
            12_310_119_168,
            "float32",
            3_451_745_024,
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


def memory_needed(
    parameters: int, dtype: str, quantize: str | None = None, whole: int | None = None
) -> int:
    """Approximate bytes of memory for the weights, of which `whole` parameters are not quantised.

    Where that number is not known, none is; published models have up to four in ten.
    """
    if quantize is None:
        return parameters * _DTYPE_BYTES[dtype]
    whole = min(whole or 0, parameters)
    return round(whole * _DTYPE_BYTES[dtype] + (parameters - whole) * _QUANTIZED_BYTES[quantize])


def memory_by_form(parameters: int | None, whole: int | None) -> dict[str, int | None]:
    """Approximate bytes of memory for the weights in each of `FORMS`; None where not known."""
    return {
        name: None if parameters is None else memory_needed(parameters, *form, whole)
        for name, form in FORMS.items()
    }
