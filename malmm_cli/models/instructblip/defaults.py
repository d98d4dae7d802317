"""The settings of MA-LMM's authors: their prompts and numbers for captions and for questions."""

from malmm_cli.settings import Decoding, Defaults, MemoryOptions, Sampling, Settings

__all__ = ["ASK", "CAPTION", "DEFAULTS"]

# From the reference's run_scripts and default configuration.
CAPTION = Settings(prompt="what does the video describe?")
ASK = Settings(
    prompt="Question: {} Short answer:",
    sampling=Sampling(frames=20),
    memory=MemoryOptions(length=10),
    decoding=Decoding(max_new_tokens=9, length_penalty=0.0),
)

DEFAULTS = Defaults(
    {"caption": CAPTION, "ask": ASK},
    policies=("mbc", "fifo", "average", "last", "random", "uniform"),
    banks=("both", "visual", "query", "none"),
    merges=("token", "frame"),
    means=("weighted", "plain"),
    training=("positions", "position_gradient", "quantize"),
)
