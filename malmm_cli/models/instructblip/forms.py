"""Other implementations of InstructBLIP that benchmarks compare with.

`slots` is the form that is used; `naive` projects the whole bank again at every frame; `none` is
transformers' Q-Former, which has no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from malmm_cli.memory.bank import PlainBank
from malmm_cli.models.instructblip.memory import Memory
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.models.instructblip.qformer import QFormer, no_projections
from malmm_cli.settings import Decoding

__all__ = [
    *("CHUNK", "heard", "naive_step", "plain_step", "published_answers", "published_context"),
    *("published_model", "step", "transformers_step"),
]

# Frames that the form `slots` observes at a time; their outputs are read once.
CHUNK = 8

# Published InstructBLIP: 257 patch tokens of width 1408, 32 query tokens; 16 tokens of question.
_PATCHES, _WIDTH, _QUERIES, _WORDS = 257, 1408, 32, 16


def step(form: str, length: int) -> Callable[[], Tensor]:
    """One step of our Q-Former at true sizes, with a full memory; `slots` does `CHUNK` of them."""
    net = QFormer(transformers.InstructBlipQFormerConfig(vocab_size=30523)).eval()
    queries = torch.randn(1, _QUERIES, net.config.hidden_size)
    ids = torch.randint(5, 30000, (1, _WORDS))
    with torch.no_grad():
        memory = net.start(queries, ids, torch.ones_like(ids), length=length)

    def feature() -> Tensor:
        return torch.randn(1, _PATCHES, _WIDTH)

    @torch.no_grad()
    def naive() -> Tensor:
        return plain_step(net, feature(), memory, _QUERIES)

    @torch.no_grad()
    def slots() -> Tensor:
        for _ in range(CHUNK - 1):
            net.step(feature(), memory, _QUERIES, store=True)
        return net.step(feature(), memory, _QUERIES)

    if form == "naive":
        _fill_plain(memory, length, net.config.hidden_size)
        return naive
    for _ in range(-(-length // CHUNK)):
        slots()
    return slots


def _fill_plain(memory: Memory, length: int, width: int) -> None:
    """Banks in the naive form, full from the start: streaming into them would take minutes."""
    memory.visual = _full_bank(length, _PATCHES, _WIDTH)
    memory.queries = [_full_bank(length, _QUERIES + _WORDS, width) for _ in memory.queries]


def _full_bank(length: int, positions: int, width: int) -> PlainBank:
    entries = torch.randn(1, length, positions, width)
    return PlainBank(length, entries=entries, counts=torch.ones(1, length, positions))


def transformers_step() -> Callable[[], Tensor]:
    """One step of transformers' Q-Former at true sizes."""
    config = transformers.InstructBlipQFormerConfig(vocab_size=30523)
    net: Any = transformers.InstructBlipQFormerModel(config)
    net.eval()
    queries = torch.randn(1, _QUERIES, config.hidden_size)
    ids = torch.randint(5, 30000, (1, _WORDS))

    @torch.no_grad()
    def run() -> Tensor:
        out: Tensor = net(
            input_ids=ids,
            query_embeds=queries,
            encoder_hidden_states=torch.randn(1, _PATCHES, _WIDTH),
        ).last_hidden_state
        return out

    return run


def plain_step(net: QFormer, feature: Tensor, memory: Memory, queries: int) -> Tensor:
    """Read a frame (V, P, C) and store it in plain banks, in one pass as the reference does."""
    seen = net.step(feature, memory, queries)
    for bank in memory.banks_in_use:
        bank.append(no_projections)
    return seen


def naive_step(net: InstructBlip, rows: Tensor, memory: Memory) -> Tensor:
    """`plain_step` for one frame's rows (1, P, C) without a position; tokens (B, n, D)."""
    return plain_step(net.qformer, net.placed(rows, memory), memory, net.num_queries)


def published_model(net: InstructBlip) -> Any:
    """Transformers' InstructBLIP-Video with this model's parameters, none of them copied."""
    config = transformers.InstructBlipVideoConfig.from_dict(
        {**net.config.to_dict(), "model_type": "instructblipvideo"}
    )
    with torch.device("meta"):
        theirs: Any = transformers.InstructBlipVideoForConditionalGeneration(config)
    theirs.vision_model, theirs.language_model = net.vision_model, net.language_model
    theirs.load_state_dict(net.state_dict(), assign=True, strict=False)
    absent = [name for name, value in theirs.named_parameters() if value.is_meta]
    assert not absent, f"transformers has parameters that are not ours: {absent[:3]}"
    for part in theirs.modules():  # numbers of positions, which no state has
        for name, value in part.named_buffers(recurse=False):
            if value.is_meta:
                fresh = torch.arange(value.shape[-1], device=net.device).expand(value.shape)
                part.register_buffer(name, fresh, persistent=False)
    return theirs.eval()


def heard(net: InstructBlip) -> tuple[Any, Any]:
    """The part of the language model that reads tokens first, and its head."""
    model = net.language_model
    part = model.get_decoder() if net.texts.decoder_only else model.get_encoder()
    return part, model.get_output_embeddings()


@torch.no_grad()
def published_answers(
    net: InstructBlip,
    theirs: Any,
    folder: Path,
    frames: Tensor,
    seconds: Tensor,
    prompts: Sequence[str],
    decoding: Decoding,
) -> list[str]:
    """What InstructBLIP-Video says of frames (T, H, W, 3) uint8; it knows nothing of seconds."""
    return _generated(net, published_context(net, theirs, frames, prompts), prompts, decoding)


@torch.no_grad()
def published_context(
    net: InstructBlip, theirs: Any, frames: Tensor, prompts: Sequence[str]
) -> Tensor:
    """What InstructBLIP-Video makes of frames (T, H, W, 3) uint8: tokens (B, T * n, E)."""
    ids, mask = (x.to(net.device) for x in net.texts.instructions(prompts))
    pixels = frames.to(net.device).permute(0, 3, 1, 2) / 255
    mean, std = net.pixel_mean[:, None, None], net.pixel_std[:, None, None]
    pixels = ((pixels - mean) / std).to(net.dtype).expand(len(prompts), *pixels.shape)
    tokens = theirs.get_video_features(pixels, ids, mask, return_dict=True).pooler_output
    joined: Tensor = tokens.reshape(len(prompts), -1, tokens.shape[-1])
    return joined


def _generated(
    net: InstructBlip, tokens: Tensor, prompts: Sequence[str], decoding: Decoding
) -> list[str]:
    """Let the language model answer after `published_context`, tokens (B, n, E)."""
    side = "left" if net.texts.decoder_only else "right"
    ids, mask = (x.to(net.device) for x in net.texts.prompts(prompts, side=side))
    words = net.language_model.get_input_embeddings()(ids)
    found = net.language_model.generate(
        inputs_embeds=torch.cat([tokens.to(words.dtype), words], dim=1),
        attention_mask=torch.cat([mask.new_ones(tokens.shape[:2]), mask], dim=1),
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        pad_token_id=net.texts.padding,
    )
    return net.texts.decode(found)
