"""Model folders with random damage: each answers, or is refused in one line, in bounds?"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.media_files import write_video

import malmm_cli
from malmm_cli.cli import run as command_line
from stress import QUICK
from stress.mutate import mutate

TINY = Path(malmm_cli.__file__).parent / "assets" / "tiny"
MEMORY = 2 * 2**30  # bytes that a process may grow by: the model has some MB
SECONDS = 120  # on a busy machine too

# What other folders have, and this one has not.
MORE: dict[str, Any] = {
    "generation_config.json": {"bos_token_id": 1, "eos_token_id": [2], "pad_token_id": 2},
    "processor_config.json": {
        "image_processor": json.loads((TINY / "preprocessor_config.json").read_text()),
        "processor_class": "InstructBlipProcessor",
    },
    "special_tokens_map.json": {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "added_tokens.json": {},
}
ODD: tuple[Callable[[], Any], ...] = (
    *(lambda value=value: value for value in (10**9, -1, 0, 2**63, 10**30, 1.5, 1e300, True)),
    *(lambda value=value: value for value in (None, "x", "", "\x1b[2J", "../../x", "/dev/zero")),
    *(lambda value=value: value for value in (float("nan"), float("inf"), -5, 3, 2**31 - 1)),
    list,
    dict,
    lambda: [1, 2, 3],
    lambda: {"a": 1},
    lambda: ["x"] * 1000,
)


def mutate_json(content: Any, chance: random.Random) -> str:
    """One value somewhere replaced, removed, repeated or nested deep."""
    place, key = content, None
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return json.dumps(content)
        key = chance.choice(keys)
        if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.15:
            break
        place = place[key]
    match chance.randrange(8):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place[chance.choice([key.upper(), key + "s", "auto_map", "quantization_config"])] = (
                place[key]
            )
        case 2:
            place[key] = "@"
            nested = "[" * 10**5 if chance.random() < 0.5 else '{"a":' * 300 + "1" + "}" * 300
            return json.dumps(content).replace('"@"', nested)
        case 3:
            return json.dumps(content).replace("{", '{"a": 1, "a": 2, ', 1)
        case _:
            place[key] = chance.choice(ODD)()
    return json.dumps(content)


def mutate_weights(raw: bytes, chance: random.Random) -> bytes:
    """Damage in the header, its length or anywhere."""
    length = int.from_bytes(raw[:8], "little")
    header, numbers = raw[8 : 8 + length], raw[8 + length :]
    match chance.randrange(3):
        case 0:
            header = mutate_json(json.loads(header), chance).encode()
            return len(header).to_bytes(8, "little") + header + numbers
        case 1:
            return chance.choice([2**60, 0, length + 1, 10**8, 2**64 - 1]).to_bytes(8, "little")
        case _:
            return mutate(raw[: 8 + length], chance) + numbers


def replace(path: Path, chance: random.Random) -> None:
    """Something that is not a file, or none at all."""
    path.unlink()
    match chance.randrange(6):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("/dev/zero")
        case 3:
            path.symlink_to("nowhere")
        case 4:
            path.touch()
            os.truncate(path, 2**40)  # without a byte on the disk


def damage(folder: Path, chance: random.Random) -> str:
    """Damage one file of a folder; its name and the kind of damage."""
    path = chance.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    raw, kind = path.read_bytes(), chance.choice(["bytes", "values", "values", "values", "file"])
    if kind == "file":
        replace(path, chance)
    elif kind == "bytes":
        path.write_bytes(mutate(raw, chance))
    elif path.suffix == ".json":
        path.write_text(mutate_json(json.loads(raw), chance))
    else:
        path.write_bytes(mutate_weights(raw, chance))
    return f"{path.relative_to(folder)}: {kind}"


def answer(folder: Path, video: Path) -> tuple[int | None, str, str]:
    """Exit code, None where it never came, and what a process said on stdout and stderr."""
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    child = os.fork()
    if not child:
        code = 99
        try:
            for path, number in ((out, 1), (err, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            grown = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
            resource.setrlimit(resource.RLIMIT_AS, (grown + MEMORY,) * 2)
            options = [o if o != "tiny" else str(folder) for o in QUICK]
            code = command_line(["caption", str(video), *options, "-q"])
        except BaseException:
            err.write_text(traceback.format_exc())
        os._exit(code)
    status = ended(child)
    return status, out.read_text(errors="replace"), err.read_text(errors="replace")


def ended(child: int) -> int | None:
    """The exit code of a process, -signal for one that was ended; None where it had to be."""
    for _ in range(SECONDS * 20):
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def fault(code: int | None, out: str, err: str) -> str:
    """What is wrong with the way a run ended, if anything."""
    unlike = "unlike the drawn videos"  # a warning that a sound model may give of the video
    lines = [line for line in err.splitlines() if unlike not in line]
    # tokenizers says so itself of an added token's unknown keys
    told = [line for line in out.splitlines() if not line.startswith("Ignored unknown kwarg")]
    if code == 0:
        return "" if len(told) == 1 and not lines else "more than an answer"
    if code not in (1, 2):
        return "no end" if code is None else f"exit {code}"
    if told or not lines or not lines[0].startswith("error: "):
        return "no plain error"
    if any(not line.startswith("hint: ") for line in lines[1:]) or len(lines) > 2:
        return "more than a line of error and a hint"
    return "" if err.replace("\n", "").isprintable() else "control characters"


def run(number: int, seed: int, only: int | None = None) -> Counter[str]:
    """Damage so many folders; what became of them."""
    chance, kinds, begun = random.Random(seed), Counter[str](), time.monotonic()
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        video = Path(write_video(Path(place, "video.mp4"), 4))
        sound = Path(shutil.copytree(TINY, Path(place, "sound")))
        for name, content in MORE.items():
            (sound / name).write_text(json.dumps(content))
        model = malmm_cli.load(sound)  # what is imported now is not imported in each process
        malmm_cli.caption(video, model=model, frames=2, max_new_tokens=2)
        due = answer(sound, video)
        assert not fault(*due), due
        for index in range(number):
            folder = Path(shutil.copytree(sound, Path(place, f"m{index}")))
            what = damage(folder, chance)
            if only is not None and index != only:
                shutil.rmtree(folder)
                continue
            found = answer(folder, video)
            if problem := fault(*found):
                wrong.append(f"{index}, {what}: {problem}: {found[1][-200:]}{found[2][-1500:]}")
                print(wrong[-1], flush=True)
            same = "the same" if found[1] == due[1] else "another answer"
            kinds["refused" if found[0] else same] += 1
            shutil.rmtree(folder)
    took = time.monotonic() - begun
    print(f"{number} damaged model folders in {took:.0f} s: {dict(kinds)}")
    assert not wrong, f"{len(wrong)} of {number}"
    return kinds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="index of one folder, to look at it again")
    given = parser.parse_args()
    run(given.folders, given.seed, given.only)
