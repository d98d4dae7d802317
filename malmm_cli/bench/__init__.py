"""The measurements of docs/benchmarks.md, each in a process of its own.

child    what such a process is, and what it can tell of itself
steps    one step of the memory Q-Former
drift    whether rounding piles up over many steps
decoding reading frames, beside decord
size     a published model at its true size
video    a whole video, stage by stage, in several forms; many questions about it
forms    these forms
marks    when a language model begins to read, and has its first token
growth   tokens and memory against the number of frames
bound    what a video cannot be faster than
page     all of it as a page with pictures
plots    these pictures
"""

from __future__ import annotations

from malmm_cli.bench.child import machine
from malmm_cli.bench.decoding import decoding
from malmm_cli.bench.drift import drift
from malmm_cli.bench.growth import growth
from malmm_cli.bench.size import model
from malmm_cli.bench.steps import step
from malmm_cli.bench.video import Run, calls, questions, videos

__all__ = [
    "Run",
    "calls",
    "decoding",
    "drift",
    "growth",
    "machine",
    "model",
    "questions",
    "step",
    "videos",
]
