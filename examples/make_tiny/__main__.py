"""Makes the bundled model from nothing: it learns a language, to see, to remember, to answer.

    python examples/make_tiny my-model
    malmm ask examples/shapes.mp4 "what does the red star do?" --model ./my-model --frames 60

Each stage takes about an hour on two cores, the second one more, and is kept in my-model.work/ when
it is done; run the same command again after an interruption.

1. language: a small LLaMA learns to answer questions from timelines made of words;
2. fluency: with two more layers in its middle it goes on with full scenes and hard questions;
3. encoder: the image encoder learns to tell colour, shape and motion in each patch of frames that
   are drawn, seeded, none with the combinations that tests are made of;
4. pictures: so are whole videos, and the encoder's features of them kept;
5. reader: with both frozen, the Q-Former learns to write timelines of what its memory holds, first
   with the visual bank alone, which is quick, then with both;
6. answers: the same parts go on as `malmm train` trains any model, on questions and captions.
"""

import json
import sys
from pathlib import Path

import torch
from answers import train_answers
from encoder import train_encoder
from language import train_language
from model import deepen, export, new_model
from pictures import make_pictures
from reader import Videos, train_reader

from malmm_cli.models import InstructBlip

STEPS = {
    "language": 1800,
    "fluency": 2900,
    "encoder": 6000,
    "reader": 3000,
    "reader both": 1200,
    "answers": 100,
}
VIDEOS = 3500
LANGUAGE, SIGHT = ("language_model",), ("vision_model", "position_embedding")
READING = ("qformer", "query_tokens", "position_embedding", "language_projection")


def main(target: Path) -> None:
    """Run the stages that are not done yet, then write the model to target."""
    torch.manual_seed(0)
    work = target.with_name(f"{target.name}.work")
    shallow, model = new_model(work / "shallow", layers=4), new_model(work / "untrained")

    def log(line: str) -> None:
        print(line, flush=True)
        with (work / "log.txt").open("a") as file:
            file.write(f"{line}\n")

    def stage(name: str, net: InstructBlip, parts: tuple[str, ...], train, *given, **options):
        """Train unless that is done; net then has what was learnt, the parameters of its parts."""
        path = work / f"{name}.pt"
        if not path.exists():
            train(net, *given, STEPS[name], log, **options)
            learnt = {k: v for k, v in net.state_dict().items() if k.startswith(parts)}
            torch.save(learnt, path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
        net.load_state_dict(torch.load(path, weights_only=True), strict=False)

    log(json.dumps({"torch": torch.__version__, "steps": STEPS, "videos": VIDEOS}))
    stage("language", shallow, LANGUAGE, train_language)
    deepen(shallow, model)
    stage("fluency", model, LANGUAGE, train_language, fluent=True, rate=1e-3)
    stage("encoder", model, SIGHT, train_encoder)
    make_pictures(work / "pictures", VIDEOS, log)
    videos = Videos.encoded(model, work / "pictures", work / "features", log)
    stage("reader", model, READING, train_reader, videos)
    stage("reader both", model, READING, train_reader, videos, banks="both", rate=4e-4)
    stage("answers", model, READING, train_answers, videos, work / "answers")
    export(model, work / "untrained", target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
