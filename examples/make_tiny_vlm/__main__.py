"""Makes the bundled vision-language model: it learns to see, to read a bank, to do both.

    python examples/make_tiny_vlm my-vlm
    malmm ask examples/shapes.mp4 "what does the red star do?" --model ./my-vlm

What is learnt is kept in my-vlm.work/ (or the folder after --work), with a log; the same command
goes on after a stop. Stages 1 and 2 need nothing of each other and run side by side.

1. eye: encoder and projector learn to write the words that are true in each cell of a frame;
2. tongue: the language model of the bundled `tiny` learns to answer from a bank of what a perfect
   eye writes, in the form of this family;
3. pictures: whole videos are drawn, and what the eye writes of them kept;
4. both: the language model goes on with these, and full scenes and hard questions.
"""

import argparse
import multiprocessing
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "make_tiny"))

from cells import signed_scene
from eye import EYE, train_eye
from model import ORIGIN
from pictures import make_pictures
from seen import eyed, watched
from shape import export, new_model
from stages import claim, logger, stage
from tongue import TONGUE, speak, train_tongue

STEPS = {"eye": 4000, "tongue": 2000, "both": 2000}
VIDEOS = 2500
VERSION = 1


def main(target: Path, work: Path) -> None:
    """Run the stages that are not done yet in `work`, then write the model to target."""
    if target.exists():
        print(f"{target} is made")
        return
    claim(work, {"vlm": VERSION, "steps": STEPS, "videos": VIDEOS})
    log = logger(work)
    log(f"torch {torch.__version__}, {STEPS}, {VIDEOS} videos")
    cores = torch.get_num_threads()
    half = max(1, cores // 2)
    speaking = multiprocessing.get_context("spawn").Process(
        target=speak, args=(work, STEPS["tongue"], half), daemon=True
    )
    speaking.start()
    torch.set_num_threads(half)
    model = new_model(work / "untrained")
    stage("eye", model, EYE, train_eye, work, STEPS["eye"])
    make_pictures(work / "pictures", VIDEOS, log, scenes=signed_scene)
    eyed(model, work / "pictures", work / "rows", log)
    while speaking.is_alive():
        speaking.join(1)
    spoken = work / "tongue.pt"
    if not spoken.exists():
        raise SystemExit("the stage of the language model failed; run the same command again")
    torch.set_num_threads(cores)
    model.net.load_state_dict(torch.load(spoken, weights_only=True), strict=False)
    options = {"draw": watched(work / "rows"), "title": "both", "fluent": True, "rate": 1e-3}
    stage("both", model, TONGUE, train_tongue, work, STEPS["both"], **options)
    export(model, work / "untrained", target, ORIGIN)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the bundled vision-language model.")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--work", type=Path, help="folder of the stages; by default FOLDER.work")
    given = parser.parse_args()
    main(given.folder, given.work or given.folder.with_name(f"{given.folder.name}.work"))
