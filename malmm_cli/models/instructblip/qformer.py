"""The Q-Former, reading one frame at a time with a memory that is passed in.

Parameter names are those of the published InstructBLIP weights, so they load strictly. The
memory follows MA-LMM (CVPR 2024, section 3.2): every cross-attention layer reads the visual bank,
every self-attention layer its own query bank of everything that layer was given before, query
tokens and instruction alike.

Letters: V videos, B prompts (B / V of each video, side by side), T frames, P patch tokens,
C encoder width, N = query tokens and instruction tokens together, D Q-Former width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import InstructBlipQFormerConfig

from malmm_cli.memory.bank import Bank, MemoryBank, Project
from malmm_cli.memory.rule import Rule
from malmm_cli.models.instructblip.memory import Memory
from malmm_cli.settings import MemoryOptions

__all__ = ["QFormer", "no_projections"]


class QFormer(nn.Module):
    """Query tokens and an instruction against one frame, and against all that came before it."""

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)

    def start(
        self,
        queries: Tensor,
        ids: Tensor,
        mask: Tensor,
        *,
        total: int | None = None,
        skipped: int = 0,
        first_layer: bool = False,
        **options: Any,
    ) -> Memory:
        """An empty memory for queries (1, n, D) and instructions ids, mask (B, L) int64.

        `options` are those of `MemoryOptions`. Of `total` frames, if that is known, the first
        `skipped` are not read.

        Layer 0 is given the same input at every frame unless there is dropout, so that its bank
        changes nothing and is left out; `first_layer` keeps it.
        """
        hidden = self.embeddings(queries, ids)
        padding = torch.cat([mask.new_ones(len(ids), queries.shape[1]), mask], dim=1).bool()
        real = None if padding.all() else padding
        how = MemoryOptions(**options)
        seen = None if total is None else total - skipped

        def bank(on: bool, mask: Tensor | None) -> Bank | None:
            if not on:
                return None
            rule = Rule(how.policy, how.mean, how.merge, how.seed, seen)
            return MemoryBank(how.length, rule, mask)

        by_query = how.keeps_queries and len(ids) > 0
        return Memory(
            length=how.length,
            policy=how.policy,
            banks=how.banks,
            hidden=hidden,
            mask=real,
            visual=bank(how.keeps_visual, None),
            queries=[
                bank(by_query and (index > 0 or first_layer), real)
                for index, _ in enumerate(self.encoder)
            ],
            total=total,
            frames=skipped,
        )

    def apart(self, features: Tensor, memory: Memory, num_queries: int) -> Tensor:
        """Read every frame by itself: features (V, T, P, C) to query outputs (B, T, n, D)."""
        videos, frames = features.shape[:2]
        prompts = len(memory.hidden) // videos

        def repeat(x: Tensor) -> Tensor:
            by_video = x.view(videos, 1, prompts, *x.shape[1:])
            return by_video.expand(-1, frames, *by_video.shape[2:]).flatten(0, 2)

        batch = replace(
            memory,
            hidden=repeat(memory.hidden),
            mask=None if memory.mask is None else repeat(memory.mask),
            begun=None,
        )
        out = self.step(features.flatten(0, 1), batch, num_queries)
        by_frame = out.view(videos, frames, prompts, *out.shape[1:])
        return by_frame.transpose(1, 2).flatten(0, 1)

    def step(
        self,
        feature: Tensor,
        memory: Memory,
        num_queries: int,
        *,
        store: bool = False,
        projected: bool = True,
    ) -> Tensor:
        """Read one frame (V, P, C) against the banks: query outputs (B, n, D).

        Attention sees at most M entries and the frame itself. The banks stay as they are, unless
        the frame is to be stored: then each is appended what its layer was given, and layers after
        the deepest one with a bank are left out, so that the outputs mean nothing. Banks that are
        only read in their plain form afterwards need not be `projected`.
        """
        layers, deepest = list(self.encoder), len(memory.queries)
        if store:
            deepest = max(
                (i for i, bank in enumerate(memory.queries) if bank is not None), default=0
            )
        project = self._project if projected or deepest else no_projections
        seen = _read(memory.visual, feature, project)
        hidden, seen_by_layer = memory.hidden, iter(zip(seen[::2], seen[1::2], strict=True))
        for layer, bank in zip(layers[:deepest], memory.queries, strict=False):
            context = next(seen_by_layer) if layer.crossattention is not None else None
            if layer is layers[0] and bank is None and not torch.is_grad_enabled():
                # its input is the same at every frame, so what it makes of that alone is too
                if memory.begun is None:
                    memory.begun = layer.begin(hidden, memory.mask, None, num_queries)
                begun = memory.begun
            else:
                begun = layer.begin(hidden, memory.mask, bank, num_queries)
            hidden = layer.end(*begun, context)
        if store:
            self._store(hidden, memory, deepest, projected)
        return hidden[:, :num_queries]

    def _store(self, hidden: Tensor, memory: Memory, deepest: int, projected: bool) -> None:
        """Append what was read to every bank; `hidden` is what the deepest one's layer is given."""
        layers, last = list(self.encoder), memory.queries[deepest]
        if last is not None:
            attention = layers[deepest].attention.attention
            last.read(hidden, attention.project if projected else no_projections)
        if memory.visual is not None:
            memory.visual.append(self._project if projected or deepest else no_projections)
        for layer, bank in zip(layers, memory.queries, strict=True):
            if bank is not None:
                whole = projected or bank is not last
                bank.append(layer.attention.attention.project if whole else no_projections)

    def _project(self, rows: Tensor) -> list[Tensor]:
        """Keys and values of visual rows (V, P, C) for every cross-attention layer in turn."""
        crossing = [layer.crossattention for layer in self.encoder if layer.crossattention]
        return [projected for cross in crossing for projected in cross.attention.project(rows)]


class _Encoder(nn.Module):
    """The layers; iterates over them."""

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList()
        for index in range(config.num_hidden_layers):
            crosses = index % config.cross_attention_frequency == 0
            self.layer.append(_Layer(config, crosses=crosses))

    def __iter__(self) -> Iterator[_Layer]:
        return iter(self.layer)  # type: ignore[arg-type]


class _Embeddings(nn.Module):
    """Query tokens, which have no position, before word embeddings, which have."""

    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(
            config.vocab_size, width, padding_idx=config.pad_token_id
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.layernorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, queries: Tensor, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)
        words = self.word_embeddings(ids) + self.position_embeddings(positions)
        both = torch.cat([queries.expand(len(ids), -1, -1), words], dim=1)
        hidden: Tensor = self.dropout(self.layernorm(both))
        return hidden


class _Layer(nn.Module):
    """Self-attention over all tokens; cross-attention, where there is one, for the queries."""

    def __init__(self, config: InstructBlipQFormerConfig, *, crosses: bool) -> None:
        super().__init__()
        self.attention = _Attention(config, config.hidden_size)
        self.crossattention = _Attention(config, config.encoder_hidden_size) if crosses else None
        self.intermediate_query = _Intermediate(config)
        self.output_query = _Output(config, config.intermediate_size)
        self.intermediate = _Intermediate(config)
        self.output = _Output(config, config.intermediate_size)

    def begin(
        self, hidden: Tensor, mask: Tensor | None, bank: Bank | None, num_queries: int
    ) -> tuple[Tensor, Tensor]:
        """Self-attention over hidden (B, N, D): queries (B, n, D), and text (B, L, D) done."""
        project = self.attention.attention.project
        keys, values = _read(bank, hidden, project)
        hidden = self.attention(hidden, keys, values, mask)
        queries, text = hidden[:, :num_queries], hidden[:, num_queries:]
        return queries, self.output(self.intermediate(text), text)

    def end(self, queries: Tensor, text: Tensor, context: tuple[Tensor, Tensor] | None) -> Tensor:
        """Cross-attention of queries, where there is any; all tokens (B, N, D)."""
        if self.crossattention is not None and context is not None:
            queries = self.crossattention(queries, *context)
        queries = self.output_query(self.intermediate_query(queries), queries)
        return torch.cat([queries, text], dim=1)


class _Attention(nn.Module):
    """Attention, its output projection and the residual connection."""

    def __init__(self, config: InstructBlipQFormerConfig, context_width: int) -> None:
        super().__init__()
        self.attention = _MultiHead(config, context_width)
        self.output = _Output(config, config.hidden_size)

    def forward(
        self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        attended: Tensor = self.output(self.attention(hidden, keys, values, mask), hidden)
        return attended


class _MultiHead(nn.Module):
    """Queries of tokens against keys and values that were projected before."""

    def __init__(self, config: InstructBlipQFormerConfig, context_width: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        if width % self.heads:
            raise ValueError(f"a width of {width} is not divisible by {self.heads} heads")
        self.dropout = config.attention_probs_dropout_prob
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)

    def project(self, rows: Tensor) -> list[Tensor]:
        """Keys and values, each (..., D), of rows (..., C)."""
        return [self.key(rows), self.value(rows)]

    def forward(self, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from hidden (B, n, D) to keys and values (V, K, D); mask (B, n) over each step.

        The prompts of one video share its keys: they stand one after another in the query length.
        The mask is that of one step and is repeated for every stored one.
        """
        queries = self._split(self.query(hidden).reshape(keys.shape[0], -1, keys.shape[2]))
        if mask is not None:
            mask = mask.repeat(1, keys.shape[1] // mask.shape[1])[:, None, None]
        attended = F.scaled_dot_product_attention(
            queries,
            self._split(keys),
            self._split(values),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return attended.transpose(1, 2).reshape(hidden.shape)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (V, heads, K, D / heads)


class _Intermediate(nn.Module):
    def __init__(self, config: InstructBlipQFormerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))


class _Output(nn.Module):
    def __init__(self, config: InstructBlipQFormerConfig, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        summed: Tensor = self.LayerNorm(self.dropout(self.dense(hidden)) + residual)
        return summed


def no_projections(rows: Tensor) -> list[Tensor]:
    """For a bank that is read in its plain form alone."""
    return []


def _read(bank: Bank | None, rows: Tensor, project: Project) -> list[Tensor]:
    """Projections of all that a bank holds and of rows (B, P, C); of rows alone without a bank."""
    return project(rows) if bank is None else bank.read(rows, project)
