"""What is each bank worth? Readers with both banks, either or none, from one start without banks.

    python examples/make_tiny/bank_rows.py my-model.work rows
    malmm eval DATA.jsonl --model my-model --ablate --variants rows

takes encoder, language model and videos from the finished stages of make_tiny. The start is a
reader that never had a bank; each row goes on from it with its banks, equally many steps, once for
each seed, which decides the videos and prompts of a step. A run that was stopped goes on when it
is started again; `--seeds 0` and `--seeds 1` may run side by side once the start is there.
"""

import argparse
from pathlib import Path

import torch
from encoder import SIGHT
from model import export, new_model
from reader import READING, Lesson, Videos, train_reader
from stages import LANGUAGE, logger, stage

BANKS = ("both", "visual", "query", "none")
# without a bank only the newest frame is read: of videos of all lengths, that is any window of time
START = Lesson("start", "none", videos=32, usual=(), shortest=1, pointed=True)


def main(work: Path, folder: Path, seeds: list[int], start: int, steps: int) -> None:
    """Make the start and all rows of these seeds; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder.with_name(f"{folder.name}.work")
    kept.mkdir(parents=True, exist_ok=True)
    log = logger(kept)
    model = new_model(kept / f"untrained.{seeds[0]}")
    for name, parts in (("looks", SIGHT), ("practice", LANGUAGE)):
        state = torch.load(work / f"{name}.pt", weights_only=True)
        model.load_state_dict({k: v for k, v in state.items() if k.startswith(parts)}, strict=False)
    videos = Videos.encoded(model, work / "pictures", work / "features", log)
    stage("start", model, READING, train_reader, kept, start, videos=videos, lesson=START)
    for seed in seeds:
        for banks in BANKS:
            name = f"{banks}.{seed}"
            if (folder / name).exists():
                continue
            state = torch.load(kept / "start.pt", weights_only=True)
            model.load_state_dict(state, strict=False)
            lesson = Lesson(name, banks)
            stage(name, model, READING, train_reader, kept, steps, videos=videos, lesson=lesson)
            export(model, kept / f"untrained.{seeds[0]}", folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder of make_tiny's stages")
    parser.add_argument("folder", type=Path, help="where the models of the rows go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--start", type=int, default=600, help="steps of the start")
    parser.add_argument("--steps", type=int, default=500, help="steps of a row")
    given = parser.parse_args()
    main(given.work, given.folder, given.seeds, given.start, given.steps)
