"""ImageBind's audio trunk, and its vision trunk: the authors trained the audio branch through it.

Written from a description of the published network; parameters map by `trunk_keys`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Trunk", "trunk_keys"]

MOST_SCALE = 100.0
EPS = 1e-6
PREFIX = "audio_encoder."  # in the authors' model; none in imagebind_huge.pth
NAMES = {
    "modality_preprocessors.{}.cls_token": "cls_token",
    "modality_preprocessors.{}.pos_embedding_helper.pos_embed": "positions",
    "modality_preprocessors.{}.rgbt_stem.proj.": "stem.",
    "modality_preprocessors.{}.rgbt_stem.norm_layer.": "norm_before.",
    "modality_trunks.{}.pre_transformer_layer.0.": "norm_before.",
    "modality_trunks.{}.blocks.": "blocks.",
    "modality_heads.{}.0.": "norm_after.",
    "modality_heads.{}.2.": "head.",
    "modality_postprocessors.{}.1.log_logit_scale": "log_scale",
}


class Trunk(nn.Module):
    """From a clip's spectrogram, or from a picture, to a vector of the shared space.

    `audio`: input (N, 1, 128, 204), patches of 16 x 16 every 10, a learned key and value in each
    block, vectors of the norm exp(`log_scale`), at most 100; published: 20. Otherwise, for
    pictures: (N, 3, 2, 224, 224), the frame twice, vectors of norm 1. LayerNorm has eps 1e-5 in
    the audio stem and 1e-6 elsewhere.
    """

    def __init__(
        self, *, audio: bool, width: int, heads: int, blocks: int, out: int, tokens: int, patch: int
    ) -> None:
        super().__init__()
        self.stem: nn.Module
        if audio:
            self.stem = nn.Conv2d(1, width, patch, stride=10, bias=False)
        else:
            kernel = (2, patch, patch)
            self.stem = nn.Conv3d(3, width, kernel, stride=kernel, bias=False)
        self.norm_before = nn.LayerNorm(width, eps=1e-5 if audio else EPS)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, tokens, width))
        self.blocks = nn.ModuleList(_Block(width, heads, audio) for _ in range(blocks))
        self.norm_after = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Linear(width, out, bias=False)
        self.audio = audio
        if audio:
            self.log_scale = nn.Parameter(torch.tensor(20.0).log())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (N, out)."""
        tokens = self.stem(inputs).flatten(2).transpose(1, 2)
        if self.audio:
            tokens = self.norm_before(tokens)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        tokens = tokens + self.positions
        if not self.audio:
            tokens = self.norm_before(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        found = functional.normalize(self.head(self.norm_after(tokens[:, 0])), dim=-1)
        return found * self.log_scale.exp().clamp(max=MOST_SCALE) if self.audio else found


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, extra: bool) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.heads, self.extra = heads, extra
        if extra:
            self.bias_k = nn.Parameter(torch.zeros(1, 1, width))
            self.bias_v = nn.Parameter(torch.zeros(1, 1, width))

    def forward(self, tokens: Tensor) -> Tensor:
        parts = functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = parts.chunk(3, -1)
        if self.extra:
            key = torch.cat([key, self.bias_k.expand(len(key), -1, -1)], 1)
            value = torch.cat([value, self.bias_v.expand(len(value), -1, -1)], 1)
        mixed = functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value)
        )
        projected: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def _split(self, parts: Tensor) -> Tensor:
        batch, length, width = parts.shape
        return parts.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, extra: bool) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width, eps=EPS), nn.LayerNorm(width, eps=EPS)
        self.attn = _Attention(width, heads, extra)
        layers = {"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}
        self.mlp = nn.ModuleDict(layers)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm_1(tokens))
        inner = functional.gelu(self.mlp["fc1"](self.norm_2(tokens)))
        grown: Tensor = tokens + self.mlp["fc2"](inner)
        return grown


def trunk_keys(state: Mapping[str, Tensor], modality: str) -> dict[str, Tensor]:
    """Return the parameters of `modality`, "audio" or "vision", under the names of a Trunk.

    Takes the keys of imagebind_huge.pth and those of the authors' model; others are left out.
    """
    found = {}
    for name, tensor in state.items():
        bare = name.removeprefix(PREFIX)
        for theirs, ours in NAMES.items():
            start = theirs.format(modality)
            if bare.startswith(start):
                rest = bare.removeprefix(start)
                rest = rest.removeprefix("1.") if ours == "stem." else rest
                found[ours + rest] = tensor
    return found
