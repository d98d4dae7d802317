"""Captions a video, then asks about it, in five lines of Python.

    python examples/caption.py

The bundled tiny model knows the world of `malmm synth` alone, which this video is of; one for any
video is downloaded by load("vicuna-7b") instead. Either is loaded once and used for both calls.
"""

import malmm_cli

model = malmm_cli.load("tiny")
print(malmm_cli.caption("examples/shapes.mp4", model=model).text)
questions = ["what comes first?", "what does the red star do?"]
for answer in malmm_cli.ask("examples/shapes.mp4", questions, model=model, frames=60):
    print(answer.question, answer.text, answer.candidates)
