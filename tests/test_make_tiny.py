"""The stages that make the bundled model, each for a step or two."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from malmm_cli import models
from malmm_cli.synthetic import Event, Scene

STAGES = Path(__file__).parents[1] / "examples" / "make_tiny"


@pytest.fixture
def stage(monkeypatch):
    """Imports a file of the folder, which is no package, as its own __main__ does."""
    monkeypatch.syspath_prepend(str(STAGES))
    yield importlib.import_module
    for path in STAGES.glob("[!_]*.py"):
        sys.modules.pop(path.stem, None)


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
    seconds = torch.linspace(0, 59.9, 60)
    told = model.timeline(scene, seconds, number)
    assert told.shape == (model.WINDOWS, 5)
    assert told[:10].tolist() == [[1, 0, 0, 0, 0]] * 10
    assert told[12:20].tolist() == [[0, 1, 1, 1, 1]] * 8
    assert torch.allclose(told[:, 0] + told[:, 1], torch.ones(model.WINDOWS))
    few = model.timeline(scene, torch.tensor([0.0, 30.0, 59.0]), number)
    assert few[:, 0].tolist() == [1, 0, 1, *[1] * 29]


def test_texts_in_one_row_do_not_see_each_other(stage, tmp_path):
    """Packed or alone, the language model reads a text with the same loss."""
    language, model = stage("language"), stage("model")
    net = model.new_model(tmp_path / "model")
    pairs = [("what comes first?", "red star"), ("is there a red star?", "yes")]
    told = torch.rand(1, model.WINDOWS, 3)
    both, _ = language._loss(net, told, [pairs], [300, 301, 302], 0.0)
    alone = [language._loss(net, told, [[pair]], [300, 301, 302], 0.0)[0] for pair in pairs]
    sizes = [len([x for x in language._tokens(net.texts, *pair)[1] if x >= 0]) for pair in pairs]
    mean = sum(a * size for a, size in zip(alone, sizes, strict=True)) / sum(sizes)
    assert both.item() == pytest.approx(mean.item(), abs=1e-4)


def test_the_stages_make_a_model_folder_and_are_not_run_twice(stage, tmp_path, monkeypatch):
    main, pictures = script(STAGES / "__main__.py"), stage("pictures")
    reader, answers = stage("reader"), stage("answers")
    monkeypatch.setattr(pictures, "PART", 4)
    monkeypatch.setattr(reader, "PART", 4)
    monkeypatch.setattr(reader, "lengths", lambda chance: (16, 4))
    monkeypatch.setattr(answers, "lengths", lambda chance: (16, 4))
    monkeypatch.setattr(reader, "VIDEOS_A_STEP", 2)
    monkeypatch.setattr(answers, "VIDEOS_A_STEP", 2)
    monkeypatch.setattr(main, "VIDEOS", 4)
    monkeypatch.setattr(main, "STEPS", dict.fromkeys(main.STEPS, 2))
    folder = tmp_path / "made"
    main.main(folder)
    model = models.load(folder)
    assert model.position_embedding.weight.shape == (32, 96)
    assert (folder / "model.safetensors").stat().st_size < 12e6
    before = (tmp_path / "made.work" / "reader.pt").stat().st_mtime_ns
    folder.rename(tmp_path / "first")
    main.main(folder)
    assert (tmp_path / "made.work" / "reader.pt").stat().st_mtime_ns == before
