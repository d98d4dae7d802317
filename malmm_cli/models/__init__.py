"""A folder of weights → a model. One file per family; the folder's config.json says which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.errors import ModelError
from malmm_cli.folder import DERIVED, FAMILIES, TOKENIZERS, read_config, read_json, remedy
from malmm_cli.models import scratch
from malmm_cli.models.device import language_options
from malmm_cli.models.instructblip import InstructBlip
from malmm_cli.models.text import Texts
from malmm_cli.models.weights import check, fill, first_line, read_state, subset, wrong_shapes

__all__ = ["InstructBlip", "build", "check_state", "load"]

# What CLIP was trained with; every published InstructBLIP repeats it.
_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

_PIXELS = {"image_mean": _PIXEL_MEAN, "image_std": _PIXEL_STD}


def load(
    folder: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: str | None = None,
    spread: bool = False,
) -> InstructBlip:
    """The model in a folder of the published layout, ready to run; raises ModelError.

    Every parameter is loaded by name and shape: none missing, none left over. The language model
    alone may be stored in fewer bits (`quantize` "8bit" or "4bit"), or be spread over all devices
    of the machine (`spread`); both need packages that malmm does not always bring.
    """
    folder = Path(folder)
    options = language_options(device, dtype, quantize=quantize, spread=spread)
    config = _read_config(folder)
    language, instruction = _read_tokenizer(folder), _read_tokenizer(folder / "qformer_tokenizer")
    numbers = folder / "preprocessor_config.json"
    processor = read_json(numbers) if numbers.exists() else {}
    state = {
        name: value for name, value in read_state(folder).items() if not name.endswith(DERIVED)
    }
    check_state(state, folder, where=str(folder))
    mean, std = (processor.get(key, due) for key, due in _PIXELS.items())
    if not _are_three_numbers(mean) or not _are_three_numbers(std) or 0 in std:
        raise ModelError(
            f"{numbers}: image_mean and image_std must be three numbers each", hint=remedy(folder)
        )
    with _told(folder):
        model = build(
            config,
            state,
            instruction,
            language,
            dtype=dtype,
            pixel_mean=mean,
            pixel_std=std,
            name=folder,
            language_options=options,
        )
    _check_vocabularies(model, folder)
    model.move_to(device)
    if not options:
        model.language_model.to(device)
    return model


def check_state(state: Mapping[str, Tensor], folder: Path, *, where: str, **told: Any) -> None:
    """Raise ModelError unless state fits the configuration in folder; nothing is built for it.

    A language model whose head is its embeddings may lack the head. `told` goes to `check`.
    """
    config = _read_config(folder)
    table = state.get("position_embedding.weight")
    with _told(folder):
        due = dict(scratch.shapes(config, 0 if table is None else len(table)))
    tied = {"language_model.lm_head.weight"} if config.text_config.tie_word_embeddings else set()
    given = {name for name in state if not name.endswith(scratch.SHARED)}
    wrong = wrong_shapes(state, due)
    check(due.keys() - given - tied, given - due.keys(), wrong, where, **told)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Tell by ModelError of configurations that nothing can be built from."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
        raise ModelError(
            f"{folder}: its configuration makes no model: {first_line(error)}", hint=remedy(folder)
        ) from error


def build(
    config: Any,
    state: dict[str, Tensor],
    instruction_tokenizer: Any,
    language_tokenizer: Any,
    *,
    dtype: torch.dtype = torch.float32,
    pixel_mean: tuple[float, ...] = _PIXEL_MEAN,
    pixel_std: tuple[float, ...] = _PIXEL_STD,
    name: Path = Path("state dict"),
    language_options: Mapping[str, Any] = MappingProxyType({}),
) -> InstructBlip:
    """A model of config with the parameters of state; both tokenizers are transformers' own.

    `language_options` go to transformers when it loads the language model.
    """
    table = state.get("position_embedding.weight")
    decoder_only = bool(config.use_decoder_only_language_model)
    languages = (
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        if decoder_only
        else transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    )

    def theirs(prefix: str, kind: Any, part: Any, options: Mapping[str, Any]) -> Any:
        options = {"dtype": dtype, **options}
        return _load_theirs(kind, part, subset(state, prefix), f"{name}: {prefix}", options)

    encoder, language = transformers.InstructBlipVisionModel, languages[type(config.text_config)]
    model = InstructBlip(
        config,
        theirs("vision_model", encoder, config.vision_config, {}),
        theirs("language_model", language, config.text_config, language_options),
        Texts(
            instruction_tokenizer,
            language_tokenizer,
            decoder_only=decoder_only,
            positions=config.qformer_config.max_position_embeddings,
        ),
        positions=0 if table is None else len(table),
        pixel_mean=pixel_mean,
        pixel_std=pixel_std,
    )
    fill(_ours(model.state_dict()), _ours(state), str(name))
    model.move_to(dtype)
    return model.eval().requires_grad_(False)


def _ours(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Everything but the image encoder and the language model."""
    theirs = ("vision_model.", "language_model.")
    return {name: value for name, value in state.items() if not name.startswith(theirs)}


def _load_theirs(
    kind: Any, config: Any, state: dict[str, Tensor], where: str, options: Mapping[str, Any]
) -> Any:
    """A transformers model with exactly the parameters of state, never two copies of them."""
    logging: Any = transformers.utils.logging
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would print, check() says
    logging.disable_progress_bar()
    try:
        model, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=state,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    finally:
        logging.set_verbosity(verbosity)
    wrong = [
        f"{key} is {tuple(got)}, not {tuple(due)}" for key, got, due in found["mismatched_keys"]
    ]
    missing = set(found["missing_keys"])
    if getattr(config, "scale_decoder_outputs", None) is False and "lm_head.weight" not in state:
        missing.add("lm_head.weight")  # Flan-T5 has its own; transformers would tie it silently
    check(missing, found["unexpected_keys"], wrong, where)
    return model


def _are_three_numbers(values: Any) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == 3
        and all(isinstance(value, int | float) for value in values)
    )


def _check_vocabularies(model: InstructBlip, folder: Path) -> None:
    """Raise ModelError if a tokenizer knows words that have no embedding."""
    for what, words, rows in (
        ("tokenizer", model.texts.language, model.config.text_config.vocab_size),
        ("qformer_tokenizer", model.texts.instruction, model.config.qformer_config.vocab_size),
    ):
        if len(words) > rows:
            raise ModelError(
                f"{folder}: its {what} has {len(words)} words, the model {rows}",
                hint=remedy(folder),
            )


def _read_config(folder: Path) -> Any:
    content = {**read_config(folder), "model_type": FAMILIES[0]}
    try:
        return transformers.InstructBlipConfig.from_dict(content)
    except Exception as error:  # every version of transformers raises its own kinds
        raise ModelError(
            f"{folder / 'config.json'}: {first_line(error)}", hint=remedy(folder)
        ) from error


def _read_tokenizer(folder: Path) -> Any:
    try:
        if not any((folder / name).is_file() for name in TOKENIZERS):
            # transformers would make up an empty tokenizer
            raise FileNotFoundError(f"none of {', '.join(TOKENIZERS)} is there")
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # as above
        raise ModelError(
            f"{folder}: its tokenizer cannot be read: {first_line(error)}",
            hint="the language model's tokenizer lies in the model's folder, the Q-Former's in "
            f"its subfolder qformer_tokenizer: {remedy(folder)}",
        ) from error
