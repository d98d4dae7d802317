"""Captions a video, then asks about it, in five lines of Python.

    python examples/caption.py

The bundled tiny model has never been trained on anything worth saying, so its words mean nothing;
load("vicuna-7b") instead downloads one that has. Either is loaded once and used for both calls.
"""

import malmm_cli

model = malmm_cli.load("tiny")
print(malmm_cli.caption("examples/shapes.mp4", model=model).text)
for answer in malmm_cli.ask("examples/shapes.mp4", ["what shape?", "what colour?"], model=model):
    print(answer.text, answer.candidates)
