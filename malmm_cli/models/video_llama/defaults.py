"""The settings of Video-LLaMA: a frame a second, a bank as long as its table of positions."""

from dataclasses import replace

from malmm_cli.settings import Decoding, Defaults, MemoryOptions, Sampling, Settings

__all__ = ["ASK", "CAPTION", "DEFAULTS"]

# The answer's length is the authors'; they draw it at random, and greedy search is repeatable.
CAPTION = Settings(
    "Describe the video in detail.",
    Sampling(frames=None, fps=1.0),
    MemoryOptions(length=32, banks="visual", merge="frame"),
    Decoding(max_new_tokens=300, beams=1, repetition_penalty=1.0),
)
ASK = replace(CAPTION, prompt="{}")

DEFAULTS = Defaults(
    {"caption": CAPTION, "ask": ASK},
    policies=("mbc", "ward", "fifo", "average", "last", "random", "uniform"),
    banks=("visual",),
    merges=("frame", "token"),
    means=("weighted", "plain"),
)
