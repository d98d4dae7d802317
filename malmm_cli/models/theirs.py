"""transformers' models with the parameters of a folder, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from malmm_cli.checkpoints.state import check
from malmm_cli.models.config import quiet

__all__ = ["load_theirs"]


def load_theirs(
    kind: Any, config: Any, state: dict[str, Tensor], where: str, options: Mapping[str, Any]
) -> Any:
    """A transformers model with exactly the parameters of state, never two copies of them.

    `options` go to its `from_pretrained`. Raises ModelError for names and shapes that do not fit.
    """
    with quiet():  # what it would print, check() says
        model, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=state,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    wrong = [
        f"{key} is {tuple(got)}, not {tuple(expected)}"
        for key, got, expected in found["mismatched_keys"]
    ]
    missing = set(found["missing_keys"])
    if getattr(config, "scale_decoder_outputs", None) is False and "lm_head.weight" not in state:
        missing.add("lm_head.weight")  # Flan-T5 has its own; transformers would tie it silently
    check(missing, found["unexpected_keys"], wrong, where)
    return model
