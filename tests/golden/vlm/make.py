"""What transformers' own video path makes of tiny models: the truth for vision-language models.

    python -m venv golden
    golden/bin/pip install torch torchvision transformers==5.23.0 num2words pillow msgspec
    PYTHONPATH=. golden/bin/python tests/golden/vlm/make.py tests/golden/vlm

Processors, which need torchvision, are used nowhere else. One file for each architecture and
version of transformers: the frames' size and number, the ids of the prompt, its logits at every
position (projected to NUMBERS columns by a fixed matrix), and the greedy answer's ids.
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from malmm_cli.models.vlm import random_init
from malmm_cli.models.vlm.load import ADAPTERS

WORDS = ["what", "does", "the", "video", "describe", "red", "circle", "how", "many", "short"]
PROMPT = "what does the red circle do?"
NUMBERS, NEW = 16, 16
# frames, and their width and height in tokens where that is free
SHAPES = {
    "five": (5, 3, 3),
    "wide": (4, 5, 2),
    "tall": (3, 2, 4),
    "one": (1, 3, 2),
    "two": (2, 2, 2),
}
FPS = 2.0


def frames(number: int, width: int, height: int) -> np.ndarray:
    """A video (T, H, W, 3) uint8."""
    chance = np.random.RandomState(number * 1000 + width)
    return chance.randint(0, 256, (number, height, width, 3)).astype(np.uint8)


def projected(logits: torch.Tensor) -> torch.Tensor:
    """Logits (L, V) as (L, NUMBERS) float32, as large as they are."""
    matrix = np.random.RandomState(7).standard_normal((logits.shape[-1], NUMBERS))
    return (logits.double() @ torch.from_numpy(matrix) / logits.shape[-1] ** 0.5).float()


def size_of(adapter, across: int, down: int) -> tuple[int, int]:
    """Width and height in pixels."""
    side = getattr(adapter, "side", None)
    return (across * side, down * side) if side else adapter.frame_size(1, 1)


def processor(name: str, folder: Path, adapter):
    """transformers' own, for frames that have the right size already."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    template = (folder / "chat_template.jinja").read_text()
    mean, std = map(list, adapter.pixels)
    how = {"image_mean": mean, "image_std": std, "do_sample_frames": False, "do_resize": False}
    if name.startswith("qwen"):
        pictures = {**adapter.processor, "size": {"shortest_edge": 1, "longest_edge": 10**9}}
        video = transformers.Qwen3VLVideoProcessor(**how, **pictures)
        kinds = (transformers.Qwen2VLImageProcessor(**pictures), transformers.Qwen3VLProcessor)
        options = {}
    elif name == "smolvlm":
        side = adapter.frame_size(1, 1)[0]
        size = {"size": {"longest_edge": side}, "max_image_size": {"longest_edge": side}}
        video = transformers.SmolVLMVideoProcessor(**how, **size)
        kinds = (transformers.SmolVLMImageProcessor(), transformers.SmolVLMProcessor)
        options = {"image_seq_len": adapter.patches}
    else:
        video = transformers.InternVLVideoProcessor(**how)
        kinds = (transformers.GotOcr2ImageProcessor(), transformers.InternVLProcessor)
        options = {"image_seq_length": adapter.patches}
    pictures, kind = kinds
    return kind(
        image_processor=pictures,
        tokenizer=tokenizer,
        video_processor=video,
        chat_template=template,
        **options,
    )


def case(model, processor, shape: tuple[int, int, int], adapter) -> dict[str, torch.Tensor]:
    """Ids, logits and the answer for one video."""
    number, across, down = shape
    pixels = frames(number, *size_of(adapter, across, down))
    video = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    metadata = transformers.video_utils.VideoMetadata(
        total_num_frames=number,
        fps=FPS,
        duration=(number - 1) / FPS,
        frames_indices=[*range(number)],
    )
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": PROMPT}]}
    text = transformers.ProcessorMixin.apply_chat_template(
        processor, [turn], processor.chat_template, add_generation_prompt=True
    )
    smol = adapter.kind.startswith("Smol")  # earlier versions forget to hand `return_tensors` on
    how = {"video_metadata": [metadata], "do_sample_frames": False}
    given = processor(
        text=[text],
        videos=[[video]] if smol else [video],
        videos_kwargs={**how, "return_tensors": "pt"} if smol else how,
        **({} if smol else {"return_tensors": "pt"}),
    ).convert_to_tensors("pt")
    for name, value in given.items():
        if value.is_floating_point():
            given[name] = value.double()
    with torch.no_grad():
        logits = model(**given).logits[0]
        found = model.generate(**given, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    ids = given["input_ids"][0]
    return {"ids": ids, "logits": projected(logits), "answer": found[0, len(ids) :]}


def main(target: Path) -> None:
    """Write a file for each architecture that this version has."""
    for name, adapter_class in ADAPTERS.items():
        if not hasattr(transformers, adapter_class.kind):
            print(f"{name}: not in {version('transformers')}")
            continue
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / name
            random_init.write(folder, random_init.tiny_config(name), WORDS)
            model = (
                getattr(transformers, adapter_class.kind).from_pretrained(folder).double().eval()
            )
            adapter = adapter_class(model.config)
            own = processor(name, folder, adapter)
            found = {
                f"{shape}.{key}": value.contiguous()
                for shape, sizes in SHAPES.items()
                for key, value in case(model, own, sizes, adapter).items()
            }
        save_file(found, target / f"{name}-{version('transformers')}.safetensors")
        answers = [len(set(v.tolist())) for k, v in found.items() if k.endswith("answer")]
        print(name, {k: len(v) for k, v in found.items() if k.endswith("ids")}, answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
