"""The same frames and prompts through malmm and through transformers' own classes.

transformers' processor makes the inputs where it can be used: it needs torchvision, which malmm
does not. Without it the folder's chat template is compared, and its model is given malmm's pixels.

Letters: T frames, L tokens of a prompt, l of them behind the video, n new tokens, V words.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.errors import ModelError, first_line
from malmm_cli.models.config import quiet
from malmm_cli.models.reading import Reading
from malmm_cli.models.vlm.adapter import Adapter
from malmm_cli.models.vlm.memory import Memory
from malmm_cli.models.vlm.model import VisionLanguage
from malmm_cli.models.vlm.processor import template_of
from malmm_cli.models.vlm.texts import Texts
from malmm_cli.settings import Decoding, MemoryOptions

__all__ = ["Asked", "asked", "made", "ours", "placed", "prompt_ids", "theirs"]

_FPS = 1000.0  # transformers' processors count frames, not seconds


@dataclass(frozen=True)
class Asked:
    """Prompts as transformers makes them: `inputs` (B) of its model, on the CPU.

    `processor` names its class, or is None because `without` says why not. `form` says in which
    way malmm's prompts are written to be these, where that is not its usual one; `pixels` is the
    largest difference from malmm's pixels.
    """

    prompts: Sequence[str]
    memory: Memory = field(repr=False)
    adapter: Adapter
    texts: Texts
    inputs: list[dict[str, Tensor]] = field(repr=False)
    processor: str | None
    without: str | None
    form: str
    pixels: float | None


def asked(
    model: VisionLanguage, folder: Path, frames: Tensor, seconds: Tensor, prompts: Sequence[str]
) -> Asked:
    """What transformers makes of frames (T, H, W, 3) uint8, shown at seconds (T,), and prompts.

    Raises ModelError for a chat template that does not say where a video goes.
    """
    adapter, texts = model.adapter, model.texts
    whole = torch.arange(model.spec.features(len(frames)) * adapter.frames_per_feature)
    whole = whole.clamp(max=len(frames) - 1)  # the last frame again until there are whole features
    pixels = adapter.normalised(frames[whole])
    memory = model.start(prompts, MemoryOptions(len(frames), banks="visual", merge="frame"))
    model.observe(memory, model.encode(frames[whole], seconds[whole]))
    processor, without = None, None
    try:
        processor = _processor(folder)
        inputs = [_processed(processor, adapter, frames, seconds, text) for text in prompts]
    except Exception as error:  # each version and each missing package raises its own kinds
        reason = first_line(error).replace(str(folder), "the folder")
        processor = None
        without = reason if find_spec("torchvision") else "no torchvision"
        around = _around(adapter, memory)
        inputs = [made(adapter, texts, folder, around, pixels, text) for text in prompts]
    due = [given["input_ids"][0].tolist() for given in inputs]
    notes = [
        note
        for note, other in adapter.forms.items()
        if [prompt_ids(other, texts, memory, text) for text in prompts] == due
    ]
    form = notes[0] if notes else ""
    return Asked(
        prompts,
        memory,
        adapter.forms[form],
        texts,
        inputs,
        processor=None if processor is None else type(processor).__name__,
        without=without,
        form=form,
        pixels=None if processor is None else _difference(adapter, pixels, inputs[0]),
    )


@torch.no_grad()
def ours(model: VisionLanguage, about: Asked, new: int) -> list[Reading]:
    """How malmm reads each prompt, and its greedy answer of at most `new` tokens."""
    noting = _Noting(about.texts.tokenizer, about.texts.ends)
    model = replace(model, adapter=about.adapter, texts=noting)
    context = model.context(about.memory)
    greedy = Decoding(max_new_tokens=new, beams=1, repetition_penalty=1.0)
    answers = model.generate(context, about.prompts, greedy)
    return [
        Reading(
            prompt_ids(about.adapter, about.texts, about.memory, prompt),
            model.logits(context, prompt).cpu(),
            answer,
            noting.noted[answer],
        )
        for prompt, (answer, *_) in zip(about.prompts, answers, strict=True)
    ]


@torch.no_grad()
def theirs(
    folder: Path, about: Asked, device: torch.device, dtype: torch.dtype, new: int
) -> list[Reading]:
    """How transformers' class reads each prompt, loaded by its own `from_pretrained`.

    Raises ModelError where that cannot load it.
    """
    kind: Any = getattr(transformers, about.adapter.kind)
    try:
        with quiet():
            net = kind.from_pretrained(
                folder, dtype=dtype, local_files_only=True, use_safetensors=True
            )
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(
            f"{folder}: transformers itself cannot load it: {first_line(error)[:300]}",
            hint="use the published files, or another version of transformers",
        ) from error
    net = net.to(device).eval()
    found = []
    for prompt, given in zip(about.prompts, about.inputs, strict=True):
        behind = len(about.texts.ids(about.adapter.question(prompt)))
        found.append(_read(net, about.texts, placed(given, device, dtype, net), behind, new))
    return found


class _Noting(Texts):
    """Notes the ids of what it decodes, by text: a text may read back as other ids."""

    def __init__(self, tokenizer: Any, ends: Sequence[int]) -> None:
        super().__init__(tokenizer, ends)
        self.noted: dict[str, list[int]] = {}

    def decode(self, ids: Tensor) -> list[str]:
        texts = super().decode(ids)
        self.noted |= zip(texts, ids.tolist(), strict=True)
        return texts


def prompt_ids(adapter: Adapter, texts: Texts, memory: Memory, prompt: str) -> list[int]:
    """The ids (L) of malmm's prompt as transformers writes them: one for each token of a slot."""
    patches, around = _around(adapter, memory)
    first, *others = map(texts.ids, around)
    ids = [*first]
    for behind in others:
        ids += [adapter.token] * patches + behind
    return [*ids, *texts.ids(adapter.question(prompt))]


def _around(adapter: Adapter, memory: Memory) -> tuple[int, list[str]]:
    """How many tokens a slot has, and the texts around slots."""
    slots = memory.given()
    spans = [(float(start), float(end)) for start, end in slots.seconds.mean(1).tolist()]
    return slots.rows.shape[1], adapter.prefix(spans)


def _processor(folder: Path) -> Any:
    """Read transformers' processor of a folder, with all of its parts."""
    kind: Any = transformers.AutoProcessor
    with quiet():
        found = kind.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if getattr(found, "video_processor", None) is None:
        raise ModelError(f"{type(found).__name__} does not read videos")
    return found


def _turn(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": text}]}]


def _processed(
    processor: Any, adapter: Adapter, frames: Tensor, seconds: Tensor, text: str
) -> dict[str, Tensor]:
    """Inputs by transformers' processor, for frames that were chosen and scaled already."""
    metadata = transformers.video_utils.VideoMetadata(
        total_num_frames=len(frames),
        fps=_FPS,
        duration=float(seconds[-1]),
        frames_indices=(seconds * _FPS).round().long().tolist(),
    )
    with quiet():
        written = processor.apply_chat_template(
            _turn(text), add_generation_prompt=True, tokenize=False, **adapter.variables
        )
        given = processor(
            text=[written],
            videos=[frames.permute(0, 3, 1, 2)],
            video_metadata=[metadata],
            do_sample_frames=False,
            do_resize=False,
            return_tensors="pt",
        )
    return {name: value for name, value in given.items() if isinstance(value, Tensor)}


def made(
    adapter: Adapter,
    texts: Texts,
    folder: Path,
    slots: tuple[int, list[str]],
    pixels: Tensor,
    text: str,
) -> dict[str, Tensor]:
    """Inputs by the folder's chat template, around malmm's own text and pixels of the video.

    `slots` says how many tokens one has, and the texts around them.
    """
    with quiet():
        written = texts.tokenizer.apply_chat_template(
            _turn(text),
            chat_template=template_of(folder),
            add_generation_prompt=True,
            tokenize=False,
            **adapter.variables,
        )
    before, found, behind = written.partition(adapter.video)
    if not found:
        raise ModelError(
            f"{folder}: its chat template has no {adapter.video} for a video",
            hint="use the published files",
        )
    patches, (first, *others) = slots
    token = texts.tokenizer.convert_ids_to_tokens(adapter.token) * patches
    video = token.join([first.removeprefix(adapter.opening), *others]) + adapter.closing
    ids = torch.tensor([texts.ids(f"{before}{video}{behind}")])
    return {"input_ids": ids, **adapter.inputs(pixels, ids)}


def _difference(adapter: Adapter, pixels: Tensor, given: dict[str, Tensor]) -> float | None:
    """The largest difference of transformers' pixels from malmm's; None for other shapes."""
    made = adapter.inputs(pixels, given["input_ids"])
    (name,) = (name for name in made if name.startswith("pixel_values"))
    if name not in given or given[name].shape != made[name].shape:
        return None
    return float((given[name] - made[name]).abs().max())


def placed(
    given: dict[str, Tensor], device: torch.device, dtype: torch.dtype, net: Any
) -> dict[str, Tensor]:
    """Inputs that the class of this version takes, on its device."""
    known = inspect.signature(net.forward).parameters
    return {
        name: value.to(device, dtype if value.is_floating_point() else None)
        for name, value in given.items()
        if name in known
    }


def _read(net: Any, texts: Texts, given: dict[str, Tensor], behind: int, new: int) -> Reading:
    """Logits behind the video, and the greedy answer with the logits of each of its tokens."""
    ids = given["input_ids"][0]
    kind: Any = transformers.GenerationConfig
    greedy = kind(
        max_new_tokens=new,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        eos_token_id=texts.ends,
        pad_token_id=texts.padding,
        return_dict_in_generate=True,
        output_logits=True,
    )
    with quiet():
        logits = net(**given, logits_to_keep=behind).logits[0, -behind:]
        found = net.generate(**given, generation_config=greedy)
    told = found.sequences[0, len(ids) :]
    steps = torch.cat(list(found.logits)).float().cpu()
    (answer,) = texts.decode(told[None])
    return Reading(ids.tolist(), logits.float().cpu(), answer, told.tolist(), steps)
