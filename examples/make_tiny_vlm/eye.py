"""Stage 1: encoder and projector learn to write what is true in each cell."""

from pathlib import Path

import torch
from cells import covered, signed_scene, written
from pictures import NAMELESS, glimpses
from shape import DIGITS, meanings
from torch import Tensor, nn
from torch.nn import functional as F
from training import Training

from malmm_cli.datasets.synthetic import COLOURS, MOTIONS, SHAPES
from malmm_cli.models.device import multiplies_bfloat16
from malmm_cli.models.vlm.model import VisionLanguage

EYE = ("model.vision_model.", "model.connector.")


class Heads(nn.Module):
    """Linear readers of one cell: what can be read, the projector can write."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sizes = (1, len(COLOURS), len(SHAPES), len(MOTIONS), 1 + len(DIGITS))
        self.read = nn.Linear(width, sum(self.sizes))

    def forward(self, rows: Tensor):
        return self.read(rows).split(self.sizes, -1)


def train_eye(
    model: VisionLanguage,
    steps: int,
    log=print,
    kept: Path | None = None,
    *,
    batch: int = 128,
    rate: float = 1e-3,
) -> None:
    """Train encoder and projector in place, on frames that are never seen twice."""
    meaning, net = meanings(model), model.net
    heads = Heads(model.adapter.width)
    parts = nn.ModuleDict(
        {"encoder": net.model.vision_model, "connector": net.model.connector, "heads": heads}
    )
    parts.train().requires_grad_(True)
    training = Training("eye", parts.named_parameters(), steps, rate, log=log, kept=kept)
    mean, std = (torch.tensor(x)[:, None, None] for x in model.adapter.pixels)
    for _, chance in training:
        frames, labels = glimpses(chance, batch * 3 // 4, batch // 4, scenes=signed_scene)
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        pixels = pixels * (0.9 + 0.2 * torch.rand(batch, 1, 1, 1))
        with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bfloat16()):
            rows = model.adapter.encode(net, (pixels - mean) / std).float()
        known = torch.from_numpy(labels)
        loss, right = _loss(rows, heads(rows), known, written(known, meaning))
        training.learn(loss, **right)
    parts.eval().requires_grad_(False)


def _loss(rows: Tensor, read, known: Tensor, due: Tensor):
    """How far rows are from what is due, as a share of it, and what can be read of them."""
    presence, *rest = read
    inside = covered(known)
    weight = inside.float() * 3 + 1
    named = known[:, 0] != NAMELESS  # no word is due for other colours, so nothing is learnt
    weight = weight * named[:, None]
    apart = ((rows - due).pow(2).mean(-1) * weight).sum() / weight.sum()
    loss = apart / due.var() + F.binary_cross_entropy_with_logits(presence[..., 0], inside.float())
    right = {"written": 1 - (apart / due.var()).item()}
    columns = {"colour": 0, "shape": 1, "motion": 2, "number": 11}
    for (name, k), guess in zip(columns.items(), rest, strict=True):
        asked = inside & (named[:, None] if name == "colour" else True)
        wanted = known[:, k].long()[:, None].expand_as(inside)[asked]
        loss = loss + F.cross_entropy(guess[asked], wanted)
        right[name] = (guess[asked].argmax(-1) == wanted).float().mean().item()
    return loss, right
