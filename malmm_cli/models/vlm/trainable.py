"""A vision-language model that learns: its projector, and adapters of its language model.

Training starts from what the frozen encoder gives the projector, which never changes. The memory
then remembers what the projector makes of it, as it does otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn

from malmm_cli.models.base import Context, Features, Spec, Work
from malmm_cli.models.vlm import answers, projector, sizes
from malmm_cli.models.vlm import lora as adapters
from malmm_cli.models.vlm.mixture import remembered
from malmm_cli.models.vlm.model import VisionLanguage
from malmm_cli.settings import MemoryOptions

__all__ = ["TrainableVisionLanguage"]


class _Unprojected(VisionLanguage):
    """The same up to the projector."""

    @cached_property
    def spec(self) -> Spec:
        """Rows are what goes into the projector, the levels' included."""
        spec, encoder = super().spec, self.adapter.encoder
        riders = {name: width for name, width in spec.riders.items() if name != "levels"}
        parts = {**spec.parts, "encoder": encoder}
        return replace(spec, width=projector.columns(self.adapter), riders=riders, parts=parts)

    def encode(self, frames: Tensor, seconds: Tensor) -> Features:
        """Frames (T k, H, W, 3) uint8 RGB, shown at `seconds` (T k,), to T features of k each."""
        pixels = self.adapter.normalised(frames.to(self.device))
        rows = projector.unprojected(self.adapter, self.net, pixels)
        return self.placed(rows, frames, seconds)

    def bytes_for(self, work: Work) -> int:
        """Bytes that are held at once for some work."""
        if work.kind == "feature":
            return self.adapter.most * self.spec.width * self.dtype.itemsize
        return super().bytes_for(work)


class TrainableVisionLanguage(VisionLanguage):
    """A vision-language model whose projector learns, on one video at a time.

    With adapters, see `prepare`, its language model learns too.
    """

    stacks_videos = False

    def encoder(self) -> VisionLanguage:
        """The same up to the projector."""
        return _Unprojected(self.net, self.adapter, self.texts, self.bits)

    def prepare(self, *, positions: int = 0, lora: int | None = None, seed: int = 0) -> None:
        """Put adapters of rank `lora` into the language model; it has no table of positions."""
        projector.keep_exact(self.adapter, self.net)
        if lora is not None:
            adapters.add(self.adapter.language(self.net), lora, seed)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn: the projector, and adapters where there are any."""
        named = dict(self.net.named_parameters())
        own = {n: part for n, part in named.items() if n.startswith(self.adapter.projector)}
        return own | adapters.parameters(self.net)

    def requires_grad_(self, requires_grad: bool) -> None:
        """Switch the gradient of all parameters."""
        self.net.requires_grad_(requires_grad)

    def eval(self) -> None:
        """Switch dropout off everywhere."""
        self.net.eval()

    def train_reader(self, mode: bool) -> None:
        """Do nothing: no part that learns has dropout."""

    def training_context(
        self,
        videos: Sequence[Features],
        prompts: Sequence[str],
        options: MemoryOptions,
        *,
        position_gradient: str,
    ) -> Context:
        """The context of one video, with gradient through every slot to the projector."""
        (video,) = videos
        rows = projector.project(self.adapter, self.net, video.rows.to(self.device))
        features = self.apart(video._replace(rows=rows).to(self.device))
        with torch.autocast(self.device.type, enabled=False):
            slots = remembered(features, {"rows": self.spec.width, **self.spec.riders}, options)
        return self.shown(slots, len(prompts))

    def loss(self, context: Context, prompts: Sequence[str], answers_: Sequence[str]) -> Tensor:
        """Mean cross-entropy () of answers to prompts about one video; on the answers alone."""
        prefix = self.prefix_of(context, 0)
        return answers.loss(self.adapter, self.net, self.texts, prefix, prompts, answers_)

    def merged(
        self, base: Mapping[str, Tensor], trained: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The projector, and the language model's layers with their adapters merged."""
        return adapters.merged(base, trained)

    def visual_tokens(self, options: MemoryOptions, features: int) -> int:
        """How many tokens, at most, it is given for a video with that many features."""
        return sizes.given(self.adapter, self.texts, options, features)

    def text_tokens(self, prompt: str, answers: Sequence[str] = ()) -> int:
        """How many tokens it reads of a prompt and the longest of its answers."""
        longest = max(map(self.answer_tokens, answers), default=0)
        return len(self.texts.ids(self.adapter.question(prompt))) + longest

    def answer_tokens(self, answer: str) -> int:
        """How many tokens an answer has, its end included."""
        return len(self.texts.ids(answer)) + 1
