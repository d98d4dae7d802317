"""Makes the bundled model from nothing: it learns a language, to see, to remember, to answer.

    python examples/make_tiny my-model
    malmm ask examples/shapes.mp4 "what does the red star do?" --model ./my-model --frames 60

Five stages, each about half an hour to an hour on two cores, each kept in my-model.work/ when it
is done; run the same command again after an interruption.

1. language: a small LLaMA learns to answer questions from timelines made of words;
2. pictures: scenes are drawn, seeded, none of the combinations that tests are made of;
3. encoder: the image encoder learns to tell colour, shape and motion in each patch;
4. reader: with both frozen, the Q-Former learns to write timelines of what its memory holds;
5. answers: the same parts go on as `malmm train` trains any model, on questions and captions.
"""

import json
import sys
from pathlib import Path

import torch
from answers import train_answers
from encoder import train_encoder
from language import train_language
from model import export, new_model
from pictures import make_pictures
from reader import Videos, train_reader

STEPS = {"language": 1800, "encoder": 4000, "reader": 5000, "answers": 1500}
VIDEOS = 4000


def main(target: Path) -> None:
    """Run the stages that are not done yet, then write the model to target."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    work = target.with_name(f"{target.name}.work")
    model = new_model(work / "untrained")

    def stage(name: str, parts: tuple[str, ...], train) -> None:
        """Train unless that is done, and take what was learnt: parameters by their prefixes."""
        path = work / f"{name}.pt"
        if not path.exists():
            train()
            learnt = {k: v for k, v in model.state_dict().items() if k.startswith(parts)}
            torch.save(learnt, path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
        model.load_state_dict(torch.load(path, weights_only=True), strict=False)

    def log(line: str) -> None:
        print(line, flush=True)
        with (work / "log.txt").open("a") as file:
            file.write(f"{line}\n")

    log(json.dumps({"torch": torch.__version__, "steps": STEPS, "videos": VIDEOS}))
    stage("language", ("language_model",), lambda: train_language(model, STEPS["language"], log))
    make_pictures(work / "pictures", VIDEOS, log)
    stage(
        "encoder",
        ("vision_model", "position_embedding"),
        lambda: train_encoder(model, work / "pictures", STEPS["encoder"], log),
    )
    videos = Videos.encoded(model, work / "pictures", work / "features", log)
    learnt = ("qformer", "query_tokens", "position_embedding", "language_projection")
    stage("reader", learnt, lambda: train_reader(model, videos, STEPS["reader"], log))
    stage(
        "answers",
        learnt,
        lambda: train_answers(model, videos, work / "answers", STEPS["answers"], log),
    )
    export(model, work / "untrained", target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
