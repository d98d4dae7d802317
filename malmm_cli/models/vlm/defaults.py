"""The settings of vision-language models: one frame a second, a bank of 64 whole slots."""

from dataclasses import replace

from malmm_cli.settings import Decoding, Defaults, MemoryOptions, Sampling, Settings

__all__ = ["ASK", "CAPTION", "DEFAULTS"]

_SAMPLING = Sampling(frames=None, fps=1.0)
_MEMORY = MemoryOptions(length=64, banks="visual", merge="frame")

CAPTION = Settings(
    "Describe the video.",
    _SAMPLING,
    _MEMORY,
    Decoding(max_new_tokens=256, beams=1, repetition_penalty=1.0),
)
ASK = replace(CAPTION, prompt="{}", decoding=replace(CAPTION.decoding, max_new_tokens=128))

DEFAULTS = Defaults(
    {"caption": CAPTION, "ask": ASK},
    policies=("mbc", "ward", "fifo", "average", "last", "random", "uniform"),
    banks=("visual",),
    merges=("frame", "token"),
    means=("weighted", "plain"),
    fills=("mean", "keep"),
    looks_again=True,
    training=("lora",),
)
