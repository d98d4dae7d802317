"""Fine-tuning of Q-Former, query tokens, position table and projection.

Training(DATA.jsonl, FOLDER).run()   files of tasks in, a model folder out
fit(net, source, ...)                the loop alone, for features that come from elsewhere
"""

from __future__ import annotations

from malmm_cli.train.job import Training
from malmm_cli.train.recipe import Recipe
from malmm_cli.train.run import fit
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
]
