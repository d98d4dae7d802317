"""The command `malmm train`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from malmm_cli.cli.launched import is_beside, said_by_first
from malmm_cli.cli.options import RunOptions, with_options
from malmm_cli.cli.terminal import Terminal

_SHARED = (
    *("model", "frames", "fps", "max_frames", "decoder", "memory", "policy", "merge", "mean"),
    *("fill", "banks", "device", "dtype", "quantize", "offline", "quiet", "no_progress"),
)


def _option(metavar: str, text: str) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel="Training")


_Data = Annotated[Path, typer.Argument(metavar="DATA.jsonl", show_default=False)]
_Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder for the trained model.")
]
_Validation = Annotated[
    Path | None,
    _option("VAL.jsonl", "Validation tasks; keeps the checkpoint that answers them best."),
]
_Steps = Annotated[int | None, _option("N", "Number of steps, instead of --epochs.")]
_Epochs = Annotated[int, _option("N", "Passes over the data.")]
_BatchSize = Annotated[int, _option("N", "Tasks per batch.")]
_Accumulate = Annotated[int, _option("N", "Batches per step.")]
_Together = Annotated[
    int, _option("N", "Tasks of one video in a batch; they share its visual bank.")
]
_Rate = Annotated[float, _option("X", "Peak learning rate.")]
_Warmup = Annotated[int | None, _option("N", "Warm-up steps.  [default: 1000, or a tenth of all]")]
_Decay = Annotated[float, _option("X", "Weight decay (matrices only).")]
_Clip = Annotated[float | None, _option("X", "Maximum gradient norm.  [default: unlimited]")]
_Positions = Annotated[
    int | None,
    _option("N", "Rows of the position table for a model without one.  [default: 120]"),
]
_PositionGradient = Annotated[
    str | None, _option("all|last", "Frames that train the position table.  [default: all]")
]
_Lora = Annotated[
    int | None,
    _option("RANK", "Train low-rank adapters of the language model too (vision-language models)."),
]
_Seed = Annotated[int, _option("N", "Random seed.")]
_SaveEvery = Annotated[int, _option("N", "Steps between checkpoints.")]
_Cache = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Folder for cached features.")]
_NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Do not cache features; encode the videos at every step.")
]


@with_options("ask", only=_SHARED)
def train(
    data: _Data,
    output: _Output,
    validation: _Validation = None,
    steps: _Steps = None,
    epochs: _Epochs = 5,
    batch_size: _BatchSize = 32,
    accumulate: _Accumulate = 1,
    together: _Together = 1,
    lr: _Rate = 1e-4,
    warmup: _Warmup = None,
    weight_decay: _Decay = 0.05,
    clip: _Clip = None,
    positions: _Positions = None,
    position_gradient: _PositionGradient = None,
    lora: _Lora = None,
    seed: _Seed = 42,
    save_every: _SaveEvery = 500,
    cache: _Cache = None,
    no_cache: _NoCache = False,
    *,
    options: RunOptions,
) -> None:
    """Train a model on questions and answers.

    Trains what is between the image encoder and the language model, which stay frozen: Q-Former,
    query tokens, position table and projection, or the projector of a vision-language model. Rerun
    the same command to resume an interrupted run.

    \b
    malmm train tasks.jsonl -o my-model --validation held-out.jsonl
    malmm train tasks.jsonl -o my-model --model tiny --steps 200 --batch-size 8
    malmm train tasks.jsonl -o my-model --model smolvlm2-500m --lora 16
    malmm ask video.mp4 "what moves?" --model ./my-model
    """
    with said_by_first():
        own: dict[str, Any] = {"positions": positions, "position_gradient": position_gradient}
        own["lora"] = lora
        _check(data, options, own)
    events = Terminal.of(options)
    # of several processes only the first shows what it does
    with nullcontext() if is_beside() else events.stage(str(output), ""):
        from malmm_cli.train import Recipe  # torch takes seconds

        recipe = Recipe(
            steps=steps,
            epochs=epochs,
            batch_size=batch_size,
            accumulate=accumulate,
            together=together,
            lr=lr,
            warmup=warmup,
            weight_decay=weight_decay,
            clip=clip,
            seed=seed,
            **own,
        )
        how: dict[str, Any] = {"validation": validation, "save_every": save_every, "cache": cache}
        how |= {**_shared(options), "keep_features": not no_cache, "events": events}
        _run(data, output, recipe=recipe, **how)


def _check(data: Path, options: RunOptions, own: dict[str, Any]) -> None:
    """Refuse what shows to be wrong before torch is imported; `own` are `Recipe.own`."""
    from malmm_cli.datasets.tasks import check_file
    from malmm_cli.pipeline.precheck import check_absent, check_training

    options.settings("ask")  # refuses wrong values, as far as the model is known
    check_training(options.model, own | {"quantize": options.quantize})
    check_file(data)
    check_absent(options.model, **options.placement())


def _run(data: Path, output: Path, **how: Any) -> None:
    """Train, and end silently in a process that another one reports for."""
    from malmm_cli.train import ToldElsewhereError, job

    try:
        job.run(data, output, **how)
    except ToldElsewhereError as error:
        raise typer.Exit(error.exit_code) from None


def _shared(options: RunOptions) -> dict[str, Any]:
    """What the shared options say, as arguments of `train.run`."""
    return {
        "model": options.model,
        **options.changes(),
        **options.placement(),
    }
