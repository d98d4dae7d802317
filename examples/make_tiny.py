"""Writes a small untrained model in the published layout, as the package bundles one.

    python examples/make_tiny.py my-model
    malmm caption examples/shapes.mp4 --model ./my-model

Any folder of this form is a model: a configuration, two tokenizers and safetensors. This one is
random, so its words mean nothing; its parts are those of the real ones, only smaller.
"""

import sys
from pathlib import Path

from malmm_cli.models.scratch import tiny_config, write
from malmm_cli.synthetic import COLOURS, MOTIONS, SHAPES

WORDS = """
    a after and are at before describe does first from how in is it last many moves moving no none
    of on question short answer shape colour color the then there to two three four video what
    where which while yes
""".split()

folder = Path(sys.argv[1])
language = sys.argv[2] if len(sys.argv) > 2 else "vicuna"
words = [*WORDS, *COLOURS, *SHAPES, *" ".join(MOTIONS).split()]
write(folder, tiny_config(language), words)
print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*.*')) / 1e6:.1f} MB")
