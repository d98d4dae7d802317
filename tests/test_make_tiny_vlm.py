"""The stages that make the small vision-language model, each for a step or two."""

import importlib.util
import random
from functools import partial

import pytest
import torch
from helpers.stages import EXAMPLES, importing

from malmm_cli.datasets.synthetic import Event, Scene
from malmm_cli.hub import locate
from malmm_cli.memory.rule import Rule
from malmm_cli.models import registry

FOLDERS = [EXAMPLES / "make_tiny_vlm", EXAMPLES / "make_tiny"]


@pytest.fixture
def stage(monkeypatch):
    """Imports a file of the folders."""
    with importing(monkeypatch, *FOLDERS) as one:
        yield one


@pytest.fixture
def model(stage, tmp_path):
    return stage("shape").new_model(tmp_path / "untrained")


def test_it_begins_with_what_the_bundled_language_model_knows(model):
    teacher = registry.load(locate("tiny").folder)
    learnt = teacher.language_model.state_dict()
    own = model.net.model.text_model.state_dict()
    assert torch.equal(
        own["layers.3.mlp.up_proj.weight"], learnt["model.layers.3.mlp.up_proj.weight"]
    )
    assert torch.equal(own["norm.weight"], learnt["model.norm.weight"])
    word = teacher.texts.language.get_vocab()["▁triangle"]
    (here,) = model.texts.ids(" triangle")
    assert torch.equal(own["embed_tokens.weight"][here], learnt["model.embed_tokens.weight"][word])
    assert torch.equal(model.net.lm_head.weight[here], learnt["lm_head.weight"][word])


def test_a_moment_is_few_tokens(model):
    _, later = model.adapter.prefix([(0.0, 2.0), (64.0, 66.0)])[:2]
    assert len(model.texts.ids(later)) <= 10, "training and answers take as long as the prefix"


def test_a_perfect_eye_writes_words_where_a_shape_is(stage, model):
    cells, shape = stage("cells"), stage("shape")
    meaning = shape.meanings(model)
    event = Event(0.0, 10.0, "red", "star", "spins", x=0.25, y=0.25, radius=0.1, number=3)
    scene = Scene(0, 20.0, (event,))
    rows = cells.frames_written(scene, torch.tensor([5.0, 15.0]), meaning)
    due = meaning["red"] + meaning["star"] + meaning["spins"] + meaning["three"]
    assert rows.shape == (2, shape.CELLS, 128)
    assert torch.allclose(rows[0, 0], due)
    assert torch.allclose(rows[0, -1], meaning["nothing"])
    assert torch.allclose(rows[1], meaning["nothing"].expand(shape.CELLS, -1))


def test_labels_are_written_as_scenes_are(stage, model):
    cells, pictures, shape = stage("cells"), stage("pictures"), stage("shape")
    meaning = shape.meanings(model)
    scene, _ = cells.signed_scene(random.Random(5), 6)
    event = scene.events[0]
    assert event.number, "the seed is of a scene with numbers"
    second = (event.start + event.end) / 2
    known = torch.tensor([pictures.label(scene, second, pictures.Style())])
    told = cells.written(known, meaning)
    assert torch.allclose(told, cells.frames_written(scene, torch.tensor([second]), meaning))


def test_videos_are_remembered_together_as_each_alone(stage):
    tongue = stage("tongue")
    rows = list(torch.randn(3, 12, 4, 8))
    seconds = [torch.arange(12.0)] * 3
    rule = Rule("mbc", merge="frame")
    together = list(tongue.remembered(rows, seconds, 5, rule))
    for one, alone in zip(together, rows, strict=True):
        (single,) = tongue.remembered([alone], seconds[:1], 5, rule)
        assert torch.equal(one.rows, single.rows)
        assert torch.equal(one.counts, single.counts)
        assert len(one.rows) == 6, "the newest frame stands beside the bank"


def test_the_stages_make_a_model_folder_that_answers(stage, tmp_path, monkeypatch):
    about = importlib.util.spec_from_file_location("make_vlm", FOLDERS[0] / "__main__.py")
    main = importlib.util.module_from_spec(about)
    about.loader.exec_module(main)
    for name in ("pictures", "seen"):
        monkeypatch.setattr(stage(name), "PART", 4)
    monkeypatch.setattr(stage("tongue"), "lengths", lambda chance: (20, 4))
    monkeypatch.setattr(main, "VIDEOS", 4)
    monkeypatch.setattr(main, "STEPS", dict.fromkeys(main.STEPS, 1))
    monkeypatch.setattr(main, "train_eye", partial(main.train_eye, batch=4))
    monkeypatch.setattr(main, "train_tongue", partial(main.train_tongue, batch=2))
    folder, work = tmp_path / "made", tmp_path / "work"
    main.main(folder, work)
    model = registry.load(folder)
    learnt = torch.load(work / "both.pt")
    name = "model.text_model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.net.state_dict()[name], learnt[name].half().float())
    before = torch.load(work / "tongue.pt")
    assert not torch.equal(learnt[name], before[name])
    same = "model.text_model.embed_tokens.weight"
    assert torch.equal(learnt[same], before[same]), "the eye has learnt to write these"
    assert (folder / "model.safetensors").stat().st_size < 6e6
