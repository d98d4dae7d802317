"""What a language model is given of a video.

Letters: B prompts, n context tokens, D their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """What the language model is given of a video, for B prompts: `tokens` (B, n, D).

    `extras` (B, L, ...) are what a family gives its language model beside them, by names of its
    own, each with a length L of its own: positions, times, a mask of the tokens that are real.
    `warnings` has those about each prompt, or is empty. In `kept` a family keeps what it works out
    of a context that is the same for all prompts, such as a cache: once for all texts after it.
    Tokens that are the same for all prompts may be an expanded view, and stay one.
    """

    tokens: Tensor = field(repr=False)
    warnings: Sequence[tuple[str, ...]] = ()
    extras: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def chosen(self, prompts: Sequence[int]) -> Context:
        """Return the same for some of the prompts."""
        which = list(prompts)
        warnings = [self.warnings[k] for k in which] if self.warnings else ()
        extras = {name: _chosen(extra, which) for name, extra in self.extras.items()}
        return Context(_chosen(self.tokens, which), warnings, extras, self.kept)

    @staticmethod
    def joined(parts: Sequence[Context]) -> Context:
        """Return one for the prompts of all parts; the shorter ones end in zeros, masks in False.

        Only families with a "mask" may give contexts of several lengths.
        """
        if len(parts) == 1:
            return parts[0]
        lengths = {part.tokens.shape[1] for part in parts}
        assert len(lengths) == 1 or "mask" in parts[0].extras, f"no mask for lengths {lengths}"
        warnings = [warning for part in parts for warning in part.warnings]
        extras = {name: _stacked([p.extras[name] for p in parts]) for name in parts[0].extras}
        return Context(_stacked([part.tokens for part in parts]), warnings, extras)

    def is_finite(self) -> bool:
        """Return whether tokens and extras are without NaN and infinity."""
        distinct = (x[:1] if _is_expanded(x) else x for x in (self.tokens, *self.extras.values()))
        return all(bool(x.isfinite().all()) for x in distinct)


def _is_expanded(x: Tensor) -> bool:
    """Whether all rows of x (B, ...) are one."""
    return len(x) > 1 and x.stride(0) == 0


def _chosen(x: Tensor, which: list[int]) -> Tensor:
    """Rows of x (B, ...), an expanded view where they are all one."""
    if which and (_is_expanded(x) or len(set(which)) == 1):
        return x[which[0]].expand(len(which), *x.shape[1:])
    return x[which]


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Join (B, L, ...) along B, each as long as the longest."""
    return nn.utils.rnn.pad_sequence([row for part in parts for row in part], batch_first=True)
