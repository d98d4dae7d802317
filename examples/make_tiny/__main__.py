"""Makes the bundled model from nothing: it learns a language, to see, to remember.

    python examples/make_tiny my-model
    malmm ask examples/shapes.mp4 "what does the red star do?" --model ./my-model --frames 60

What is learnt is kept in my-model.work/ (or the folder after --work), with a log; the same command
goes on after a stop, in the middle of a stage too. Stages 1 to 3 need no other and run beside 4 to
7; of what they learn, 7 needs only the words' embeddings, which 2 and 3 leave as they are.

1. language: a small LLaMA learns to answer questions from timelines made of words;
2. fluency: with two more layers in its middle it goes on with full scenes and hard questions;
3. practice: as fluency, from noisier timelines;
4. encoder: the image encoder learns to tell colour, shape and motion in each patch of frames that
   are drawn, seeded, none with the combinations that tests are made of;
5. looks: it goes on, with more of the looks that are hard to see by;
6. pictures: whole videos are drawn, and the encoder's features of them kept;
7. reader: with both frozen, the Q-Former learns to write timelines of what its memory holds, first
   with the visual bank alone, which is quick, then with both.

`malmm train` goes on from there with whatever is to be learnt besides.
"""

import argparse
import multiprocessing
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from encoder import SIGHT, train_encoder
from model import export, new_model
from pictures import make_pictures
from reader import BOTH, READER, READING, Videos, train_reader
from stages import claim, logger, speak, stage

STEPS = {
    "language": 2000,
    "fluency": 5000,
    "practice": 3000,
    "encoder": 6000,
    "looks": 3000,
    "reader": 3500,
    "reader both": 2500,
}
VIDEOS = 2500
VERSION = 3  # of what the stages learn; a folder of another one is of no use to these
WORDS = "language_model.model.embed_tokens.weight"


def main(target: Path, work: Path) -> None:
    """Run the stages that are not done yet in `work`, then write the model to target."""
    if target.exists():
        print(f"{target} is made")
        return
    claim(work, {"version": VERSION, "steps": STEPS, "videos": VIDEOS})
    log = logger(work)
    log(f"torch {torch.__version__}, {STEPS}, {VIDEOS} videos")
    cores = torch.get_num_threads()
    half = max(1, cores // 2)
    speaking = multiprocessing.get_context("spawn").Process(
        target=speak, args=(work, STEPS, half), daemon=True
    )
    speaking.start()
    torch.set_num_threads(half)
    torch.manual_seed(0)
    model = new_model(work / "untrained")

    def learn(name: str, parts: tuple[str, ...], train, **options) -> None:
        _check(speaking)
        torch.set_num_threads(half if speaking.is_alive() else cores)
        stage(name, model, parts, train, work, STEPS[name], **options)

    learn("encoder", SIGHT, train_encoder)
    learn("looks", SIGHT, train_encoder, hard=True)
    make_pictures(work / "pictures", VIDEOS, log)
    videos = Videos.encoded(model, work / "pictures", work / "features", log)
    language = _learnt(work / "language.pt", speaking)
    model.load_state_dict({WORDS: language[WORDS]}, strict=False)
    for lesson in (READER, BOTH):
        learn(lesson.name, READING, train_reader, videos=videos, lesson=lesson)
    model.load_state_dict(_learnt(work / "practice.pt", speaking), strict=False)
    export(model, work / "untrained", target)


def _learnt(path: Path, speaking: BaseProcess) -> dict[str, torch.Tensor]:
    """What the other process keeps in path, as soon as that is there."""
    while speaking.is_alive() and not path.exists():
        speaking.join(1)
    _check(speaking)
    return torch.load(path, weights_only=True)


def _check(speaking: BaseProcess) -> None:
    """Stop at once if the other process failed: nothing here is of use without it."""
    if speaking.exitcode:
        raise SystemExit("the stages of the language model failed; run the same command again")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Makes the bundled model from nothing.")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--work", type=Path, help="folder of the stages; by default FOLDER.work")
    given = parser.parse_args()
    main(given.folder, given.work or given.folder.with_name(f"{given.folder.name}.work"))
