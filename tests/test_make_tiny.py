"""The stages that make the bundled model, each for a step or two."""

import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from helpers.stages import EXAMPLES, importing

from malmm_cli.datasets.synthetic import Event, Scene
from malmm_cli.datasets.tasks import read_tasks
from malmm_cli.media import probe
from malmm_cli.models import registry

STAGES = EXAMPLES / "make_tiny"


@pytest.fixture
def stage(monkeypatch):
    """Imports a file of the folder."""
    with importing(monkeypatch, STAGES) as one:
        yield one


def script(path):
    """The script as a module; its own name would be that of the running program."""
    about = importlib.util.spec_from_file_location("make_tiny", path)
    module = importlib.util.module_from_spec(about)
    about.loader.exec_module(module)
    return module


def test_every_window_of_a_timeline_holds_what_was_seen_in_it(stage):
    model = stage("model")
    number = {"nothing": 0, "red": 1, "star": 2, "moves": 3, "left": 4}
    scene = Scene(0, 60.0, (Event(20.0, 40.0, "red", "star", "moves left"),))
    seconds = torch.linspace(0, 59.9, 600)
    told = model.timeline(model.words_shown(scene, seconds, number), number)
    assert told.shape == (model.WINDOWS, 5)
    assert torch.allclose(told[:20], torch.tensor([1.0, 0, 0, 0, 0]))
    assert torch.allclose(told[23:41], torch.tensor([0, 1.0, 1, 1, 1]))
    assert torch.allclose(told[:, 0] + told[:, 1], torch.ones(model.WINDOWS))
    shown = model.words_shown(scene, torch.tensor([0.0, 30.0, 59.0]), number)
    few = model.timeline(shown, number)
    assert few[:, 0].tolist() == [1, 0, 1, *[1] * 61]


def test_short_events_are_heard_in_long_windows(stage):
    model = stage("model")
    number = {"nothing": 0, "red": 1, "star": 2, "falls": 3}
    scene = Scene(0, 600.0, (Event(300.0, 303.0, "red", "star", "falls"),))
    told = model.timeline(model.words_shown(scene, torch.arange(600.0), number), number)
    assert told[:, 1].max() > 0.5, "3 of 9 frames and a half"


def test_both_windows_of_a_token_can_be_told_from_it(stage):
    """Turning is linear and keeps lengths; a window means the same in each token."""
    model = stage("model")
    rows = torch.linalg.qr(torch.randn(128, 60))[0].T[:30]
    first, second = torch.rand(2, 1, model.WINDOWS, 30)
    first[:, 1::2], second[:, ::2] = 0, 0
    tokens = model.spoken(first + second, rows)
    assert tokens.shape == (1, model.TOKENS, 128)
    assert torch.allclose(model.spoken(first, rows) @ rows.T, first[:, ::2], atol=1e-5)
    turned = model.spoken(second, rows)
    assert torch.allclose(turned.norm(dim=-1), (second[:, 1::2] @ rows).norm(dim=-1))
    assert torch.allclose(model.spoken(first, rows) + turned, tokens, atol=1e-5)
    even, odd = turned.chunk(2, -1)
    assert torch.allclose(torch.cat([odd, -even], -1) @ rows.T, second[:, 1::2], atol=1e-5)


def test_a_timeline_is_read_once_for_all_texts_about_it(stage, tmp_path):
    """The loss is that of texts which each stand behind their timeline."""
    language, model = stage("language"), stage("model")
    net = model.new_model(tmp_path / "model")
    speaker, embed = net.language_model, net.language_model.get_input_embeddings()
    told = torch.rand(2, model.WINDOWS, 3)
    about = [
        [("describe", "a red star"), ("what comes first?", "red star")],
        [("describe", "a"), ("is there a red star?", "yes"), ("how many?", "two")],
    ]
    found, _ = language._loss(net, told, about, [300, 301, 302], 0.0)
    losses: list[list[float]] = [[], []]
    tokens = model.spoken(told, embed.weight[[300, 301, 302]])
    for spoken, pairs in zip(tokens, about, strict=True):
        for k, (prompt, answer) in enumerate(pairs):
            ids, _, labels = net.texts.prompts_with_answers([prompt], [answer])
            read = torch.cat([spoken[None], embed(ids)], 1)
            logits = speaker(inputs_embeds=read).logits[0, model.TOKENS :]
            each = torch.nn.functional.cross_entropy(logits[:-1], labels[0, 1:], reduction="none")
            losses[k > 0] += each[labels[0, 1:] >= 0].tolist()
    mean = sum(sum(group) / len(group) for group in losses) / 2
    assert found.item() == pytest.approx(mean, abs=1e-4)


def test_spliced_videos_say_what_their_frames_show(stage):
    reader, model = stage("reader"), stage("model")
    chance, number = random.Random(0), {"nothing": 0, "red": 1, "blue": 2, "star": 3, "falls": 4}
    videos = reader.Videos([], [])
    for place, colour in enumerate(("red", "blue")):
        event = Event(10.0, 20.0, colour, "star", "falls")
        seconds = torch.arange(0.0, 30.0)
        videos.scenes.append((Scene(place, 30.0, (event,)), seconds))
        shown = model.words_shown(videos.scenes[-1][0], seconds * (1 - 1e-6), number)
        videos.features.append(shown[:, None, 1:3].half())  # a feature tells the colour
    assert videos.longest == 30, "no piece can be longer"
    videos.spliced(chance, 20, videos.longest, number)
    features, shown = videos.spliced(chance, 20, 25, number)
    assert features.shape == (20, 25, 1, 2)
    assert torch.equal(features[:, :, 0], shown[..., 1:3])
    assert (shown[..., 1].any(1) & shown[..., 2].any(1)).any(), "pieces of both in one"


def test_the_stages_make_a_model_folder_and_are_not_run_twice(stage, tmp_path, monkeypatch):
    main, pictures = script(STAGES / "__main__.py"), stage("pictures")
    reader = stage("reader")
    monkeypatch.setattr(pictures, "PART", 4)
    monkeypatch.setattr(reader, "PART", 4)
    monkeypatch.setattr(reader, "lengths", lambda chance, lesson: (16, 4))
    monkeypatch.setattr(main, "VIDEOS", 4)
    monkeypatch.setattr(main, "train_encoder", partial(main.train_encoder, batch=4))
    monkeypatch.setattr(main, "STEPS", dict.fromkeys(main.STEPS, 2))
    for name in ("READER", "BOTH"):
        monkeypatch.setattr(main, name, replace(getattr(reader, name), videos=2))
    folder, work = tmp_path / "made", tmp_path / "elsewhere" / "work"
    main.main(folder, work)
    learnt = [torch.load(work / f"{name}.pt") for name in ("language", "practice")]
    assert torch.equal(*(one[main.WORDS] for one in learnt)), "the reader learnt other words"
    model = registry.load(folder)
    assert torch.equal(model.state_dict()[main.WORDS], learnt[1][main.WORDS].half().float())
    assert model.position_embedding.weight.shape == (64, 96)
    assert (folder / "model.safetensors").stat().st_size < 7e6
    rows = script(STAGES / "bank_rows.py")
    monkeypatch.setattr(rows, "BANKS", ("query", "none"))
    rows.main(work, tmp_path / "rows", [0], start=1, steps=1)
    started = torch.load(tmp_path / "rows.work" / "start.pt")
    for banks in rows.BANKS:
        row = registry.load(tmp_path / "rows" / f"{banks}.0").state_dict()
        assert torch.equal(row[main.WORDS], learnt[1][main.WORDS].half().float())
        assert not torch.equal(row["query_tokens"], started["query_tokens"].half().float())
    before = (work / "reader.pt").stat().st_mtime_ns
    folder.rename(tmp_path / "first")
    main.main(folder, work)
    assert (work / "reader.pt").stat().st_mtime_ns == before
    main.main(folder, work)  # has nothing left to do, and refuses nothing


@pytest.mark.parametrize("recipe", [None, {"version": 1, "steps": {}, "videos": 3500}])
def test_a_folder_with_stages_of_another_version_is_refused_by_name(stage, tmp_path, recipe):
    stages = stage("stages")
    work = tmp_path / "old.work"
    work.mkdir()
    torch.save({}, work / "language.pt")
    if recipe:
        (work / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(SystemExit, match=r"old\.work: holds stages of another version"):
        stages.claim(work, {"version": 2, "steps": {}, "videos": 3500})
    fresh = tmp_path / "new.work"
    for _ in range(2):
        stages.claim(fresh, {"version": 2, "steps": {}, "videos": 3500})


STARTED = """
import multiprocessing, os, sys, time
from pathlib import Path
from stages import end_with_parent

def child(path):
    end_with_parent()
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    context.Process(target=child, args=(sys.argv[1],), daemon=True).start()
    time.sleep(600)
"""


def test_the_process_of_the_language_model_ends_with_the_one_that_started_it(tmp_path):
    script, number = tmp_path / "started.py", tmp_path / "number"
    script.write_text(STARTED)
    paths = os.pathsep.join(map(str, (STAGES, EXAMPLES.parent)))
    command = [sys.executable, script, number]
    started = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths})
    try:
        while not (number.exists() and number.read_text()):
            assert started.poll() is None
            time.sleep(0.05)
    finally:
        started.kill()
        started.wait()
    with suppress(psutil.NoSuchProcess):  # ended already
        psutil.Process(int(number.read_text())).wait(20)


def test_a_stage_that_was_stopped_goes_on_as_if_it_had_not_been(stage, tmp_path, monkeypatch):
    language, model, training = stage("language"), stage("model"), stage("training")
    monkeypatch.setattr(training, "KEPT_EVERY", 2)
    untrained = model.new_model(tmp_path / "model")

    def stop(line: str) -> None:
        raise KeyboardInterrupt(line)

    def learnt(kept: Path, *stops: bool) -> dict[str, torch.Tensor]:
        for stopped in stops:
            net = registry.load(tmp_path / "model")
            if not stopped:
                language.train_language(net, 4, lambda _: None, kept, batch=2)
                continue
            with pytest.raises(KeyboardInterrupt, match=r"language 2/4: loss .*, captions 0.0%"):
                language.train_language(net, 4, stop, kept, batch=2)
        return net.language_model.state_dict()

    whole, resumed = learnt(tmp_path / "a", False), learnt(tmp_path / "b", True, False)
    before = untrained.language_model.state_dict()
    assert not torch.equal(whole["lm_head.weight"], before["lm_head.weight"])
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_every_second_scene_of_glimpses_has_a_colour_without_a_name(stage):
    """None is near a colour that has one: those of combinations held out stay unseen."""
    pictures = stage("pictures")
    paint = torch.tensor(list(pictures.PAINT.values())).float()
    frames, labels = pictures.glimpses(random.Random(1), 60, 20)
    assert frames.shape == (80, 64, 64, 3)
    shown = torch.from_numpy(labels)
    shown = shown[shown[:, 0] >= 0]
    assert len(shown) == 60
    nameless = shown[:, 0] == pictures.NAMELESS
    assert 15 < nameless.sum() < 45
    far = torch.cdist(shown[:, 8:11] * 255, paint)
    assert far[nameless].min() >= pictures.FOREIGN
    names = [pictures.COLOURS[int(k)] for k in shown[~nameless, 0]]
    due = torch.tensor([pictures.PAINT[name] for name in names]) / 255
    assert torch.allclose(shown[~nameless, 8:11], due.float())


def test_muon_steps_as_pytorch_does_in_half_precision(stage):
    training = stage("training")
    for shape in ((12, 40), (40, 12)):
        ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
        options = {"lr": 0.01, "weight_decay": 0.01}
        steps = [
            (ours, training.Muon([ours], **options)),
            (theirs, torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options)),
        ]
        for seed in range(5):
            for parameter, optimizer in steps:
                torch.manual_seed(seed)
                parameter.grad = torch.randn(shape)
                optimizer.step()
        moved = (theirs - 1).norm()
        assert (ours - theirs).norm() < 0.02 * moved


class TestLooks:
    def test_test_videos_of_every_look_ask_the_same(self, stage, tmp_path, monkeypatch):
        look_videos = script(STAGES / "look_videos.py")
        some = {name: look_videos.LOOKS[name] for name in ("plain", "bars 5 %", "1 frame a second")}
        monkeypatch.setattr(look_videos, "LOOKS", some)
        monkeypatch.setattr(look_videos, "FPS", 0.5)
        look_videos.main(tmp_path / "looks", videos=1, seed=1)
        tasks = read_tasks(tmp_path / "looks" / "data.jsonl")
        asked = {look: [(t.question, t.answers) for t in tasks if t.kind == look] for look in some}
        assert asked["plain"] == asked["bars 5 %"] == asked["1 frame a second"]
        assert len(asked["plain"]) == 10
        info = {task.kind: probe(task.video) for task in tasks}
        assert (info["plain"].width, info["plain"].height) == (160, 120)
        assert (info["bars 5 %"].width, info["bars 5 %"].height) == (160, 132)
        assert info["1 frame a second"].seconds[1] == pytest.approx(1.0)
        assert (tmp_path / "looks" / "sheet.jpg").exists()

    def test_a_shape_is_where_its_label_says(self, stage):
        """Whatever the size and the bars of the picture."""
        looks, pictures = stage("looks"), stage("pictures")
        chance = random.Random(2)
        event = Event(0.0, 10.0, "red", "square", "moves left", x=0.4, y=0.6, radius=0.2)
        for _ in range(20):
            style = looks._sized(looks._barred(looks.Style(), chance), chance)
            scene = Scene(chance.randrange(100), 20.0, (event,))
            with_it, without = (looks.shown(scene, t, style).astype(int) for t in (1.0, 15.0))
            _, _, _, x, y, wide, high, *_ = pictures.label(scene, 1.0, style)
            rows, columns = abs(with_it - without).sum(-1).nonzero()
            strong = abs(with_it - without).sum(-1)[rows, columns] > 200
            middle = columns[strong].mean() / 64, rows[strong].mean() / 64
            assert middle == pytest.approx((x, y), abs=0.04), style
            spread = (columns[strong].std() / 64, rows[strong].std() / 64)
            assert spread == pytest.approx((wide * 0.46, high * 0.46), rel=0.35), style

    def test_bars_are_black_and_colours_turn_as_asked(self, stage):
        looks = stage("looks")
        scene = Scene(3, 20.0, (Event(0.0, 10.0, "red", "square", "spins"),))
        barred = looks.shown(scene, 15.0, looks.Style(bars=(0.0, 0.2, 0.0, 0.2)))
        assert barred[:11].max() < 30
        assert barred[-11:].max() < 30
        assert barred[16:48].min() > 100
        plain = looks.shown(scene, 15.0, looks.Style()).astype(float)
        dim = looks.shown(scene, 15.0, looks.Style(brightness=0.5))
        assert dim.mean() == pytest.approx(plain.mean() / 2, rel=0.02)
        grey = looks.shown(scene, 5.0, looks.Style(saturation=0.0)).astype(float)
        assert grey.std(-1).max() < 12
        turned = looks.shown(scene, 5.0, looks.Style(hue=120.0))
        red, green, blue = turned[24:40, 24:40].reshape(-1, 3)[:, :].min(0)
        assert blue > red or green > red

    def test_styles_are_mostly_plain_or_changed_in_one_way(self, stage):
        looks = stage("looks")
        plain = looks.Style()
        names = ("size", "bars", "background", "brightness", "hue", "saturation", "blur")
        counts = dict.fromkeys(names, 0)
        for k in range(500):
            style = looks.style_of(random.Random(k))
            changed = [name for name in names if getattr(style, name) != getattr(plain, name)]
            assert len(changed) <= 2
            assert len({"brightness", "hue", "saturation"} & set(changed)) <= 1
            for name in changed:
                counts[name] += 1
        assert all(count > 10 for count in counts.values()), counts
