"""A seeded world of coloured shapes whose videos are known to the second.

`scenario` decides what happens and when, `picture` and `render` draw it, `write_mp4` stores it,
`caption` and `questions` tell of it. The same seed gives the same scene, texts and pixels.
"""

from malmm_cli.datasets.synthetic.dataset import World, write_dataset
from malmm_cli.datasets.synthetic.drawing import picture, render
from malmm_cli.datasets.synthetic.scene import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SPLITS,
    Event,
    Scene,
    held_out,
)
from malmm_cli.datasets.synthetic.telling import caption, questions, words
from malmm_cli.datasets.synthetic.video import write_mp4
from malmm_cli.datasets.synthetic.worlds import WORLDS, intended_frames, scenario

__all__ = [
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SPLITS",
    "WORLDS",
    "Event",
    "Scene",
    "World",
    "caption",
    "held_out",
    "intended_frames",
    "picture",
    "questions",
    "render",
    "scenario",
    "words",
    "write_dataset",
    "write_mp4",
]
