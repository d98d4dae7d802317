"""Fine-tuning of what a model has behind its encoder.

run(DATA.jsonl, FOLDER, ...)   files of tasks in, a model folder out: what `malmm train` does
fit(net, source, ...)          only the loop, for features that come from elsewhere
"""

from __future__ import annotations

from malmm_cli.calls import public
from malmm_cli.train import job
from malmm_cli.train.job import Training
from malmm_cli.train.loop import fit
from malmm_cli.train.recipe import Recipe
from malmm_cli.train.samples import Batch, Sample, Samples, Source
from malmm_cli.train.workers import ToldElsewhereError

__all__ = [
    "Batch",
    "Recipe",
    "Sample",
    "Samples",
    "Source",
    "ToldElsewhereError",
    "Training",
    "fit",
    "run",
]

run = public(job.run, "train.run")
