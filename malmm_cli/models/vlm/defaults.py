"""The settings of vision-language models: one frame a second, a bank of 64 whole slots."""

from malmm_cli.settings import Decoding, Defaults, MemoryOptions, Sampling, Settings

__all__ = ["DEFAULTS"]

_HOW = {
    "sampling": Sampling(frames=None, fps=1.0),
    "memory": MemoryOptions(length=64, banks="visual", merge="frame"),
}

DEFAULTS = Defaults(
    {
        "caption": Settings(
            "Describe the video.",
            decoding=Decoding(max_new_tokens=256, beams=1, repetition_penalty=1.0),
            **_HOW,
        ),
        "ask": Settings(
            "{}", decoding=Decoding(max_new_tokens=128, beams=1, repetition_penalty=1.0), **_HOW
        ),
    },
    policies=("mbc", "ward", "fifo", "average", "last", "random", "uniform"),
    banks=("visual",),
    merges=("frame", "token"),
    means=("weighted", "plain"),
    fills=("mean", "keep"),
)
