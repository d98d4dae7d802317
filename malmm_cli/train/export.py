"""Trained parameters merged onto the base model → a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from malmm_cli.checkpoints.layout import copy_beside_weights
from malmm_cli.checkpoints.state import read_state, write_state
from malmm_cli.files.atomic import move_into, permit, scratch, writing
from malmm_cli.models.base import Trainable
from malmm_cli.train.checkpoint import check_finite, read_tensors

__all__ = ["export"]


def export(net: Trainable[Any], learnt: Path, base: Path, folder: Path) -> None:
    """Put the model in `base`, with what `net` learnt of it cast to its dtypes, into `folder`.

    It is put together in the folder of `learnt`; the configuration comes last, since without it
    nothing takes a folder for a model. Raises OutputError where that fails, ModelError where what
    was learnt is too large for base's dtypes.
    """
    state = read_state(base)
    trained = net.merged(state, read_tensors(learnt))
    usual = next(state[name].dtype for name in trained if name in state)  # base may lack some
    laid_over = {
        name: value.to(state[name].dtype if name in state else usual)
        for name, value in trained.items()
    }
    check_finite(laid_over)
    state |= laid_over
    path = learnt.parent / "model"
    with writing(path), scratch(path) as new:
        copy_beside_weights(base, new)
        write_state(new, state)
        permit(new)
        move_into(folder, new, last="config.json")
