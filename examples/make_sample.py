"""Draws examples/shapes.mp4, the video of README: one minute, one shape at a time.

    python examples/make_sample.py

First a scenario: which shape, in which colour, does what, from when to when. The seed alone
decides, so everybody who runs this gets the same minute. Then pictures of it, one by one, and
never more than one in memory. Then the file.
"""

from dataclasses import replace
from pathlib import Path

from malmm_cli.datasets.synthetic import render, scenario, write_mp4

SECONDS, FPS, SIZE = 60, 20, (320, 240)

scene = replace(scenario(seed=37, seconds=SECONDS, events=6), noise=0.0)
for event in scene.events:
    print(f"{event.start:5.1f} s  {event}")

path = Path(__file__).with_name("shapes.mp4")
write_mp4(render(scene, FPS, SIZE), path, FPS)
print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
