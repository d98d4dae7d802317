"""A Q-Former over the slots of a bank, with a table of positions and a projection.

Letters: T features of P rows, C their width, S slots, n query tokens, D Q-Former width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from malmm_cli.models.video_llama.memory import Track
from malmm_cli.models.video_llama.positions import table_rows

__all__ = ["Reader"]


class Reader(nn.Module):
    """Reads any number of features into n tokens of the language model's `width`."""

    def __init__(self, qformer: Any, *, queries: int, positions: int, width: int) -> None:
        super().__init__()
        config = qformer.config
        self.qformer = qformer
        self.query_tokens = nn.Parameter(torch.zeros(1, queries, config.hidden_size))
        self.position_embedding = nn.Embedding(positions, config.encoder_hidden_size)
        self.projection = nn.Linear(config.hidden_size, width)

    def whole(self, track: Track) -> Tensor:
        """What it makes of all that a memory holds: (n, D), or (T * n, D) without a bank."""
        if track.reads_apart:
            return track.given().to(self.query_tokens)
        slots = track.slots()
        table = self.position_embedding
        places = table_rows(
            slots.counts, track.seen, length=track.options.length, rows=table.num_embeddings
        )
        rows = slots.rows.to(table.weight) + table(places)
        found: Tensor = self(rows.flatten(0, 1)[None])[0]
        return found

    def each(self, rows: Tensor) -> Tensor:
        """What it makes of features (T, P, C) one by one, without positions: (T, n, D)."""
        found: Tensor = self(rows.to(self.query_tokens))
        return found

    def projected(self, outputs: Tensor) -> Tensor:
        """Outputs (n, D) as tokens (n, E) of the language model."""
        found: Tensor = self.projection(outputs)
        return found

    def forward(self, rows: Tensor) -> Tensor:
        """Rows (B, L, C) side by side to outputs (B, n, D)."""
        queries = self.query_tokens.expand(len(rows), -1, -1)
        out = self.qformer(query_embeds=queries, encoder_hidden_states=rows)
        found: Tensor = out.last_hidden_state
        return found
