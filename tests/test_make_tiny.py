"""The stages that make the bundled model, each for a step or two."""

import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch

from malmm_cli.datasets.synthetic import Event, Scene
from malmm_cli.models import registry

STAGES = Path(__file__).parents[1] / "examples" / "make_tiny"


@pytest.fixture
def stage(monkeypatch):
    """Imports a file of the folder, which is no package, as its own __main__ does."""
    monkeypatch.syspath_prepend(str(STAGES))
    names = [path.stem for path in STAGES.glob("[!_]*.py")]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


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
    told = model.timeline(model.words_shown(scene, seconds, number), number)
    assert told.shape == (model.WINDOWS, 5)
    assert told[:10].tolist() == [[1, 0, 0, 0, 0]] * 10
    assert told[12:20].tolist() == [[0, 1, 1, 1, 1]] * 8
    assert torch.allclose(told[:, 0] + told[:, 1], torch.ones(model.WINDOWS))
    shown = model.words_shown(scene, torch.tensor([0.0, 30.0, 59.0]), number)
    few = model.timeline(shown, number)
    assert few[:, 0].tolist() == [1, 0, 1, *[1] * 29]


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
    for spoken, pairs in zip(told @ embed.weight[[300, 301, 302]], about, strict=True):
        for k, (prompt, answer) in enumerate(pairs):
            ids, _, labels = net.texts.prompts_with_answers([prompt], [answer])
            read = torch.cat([spoken[None], embed(ids)], 1)
            logits = speaker(inputs_embeds=read).logits[0, model.WINDOWS :]
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
    features, shown = videos.spliced(chance, 20, 25, number)
    assert features.shape == (20, 25, 1, 2)
    assert torch.equal(features[:, :, 0], shown[..., 1:3])
    assert (shown[..., 1].any(1) & shown[..., 2].any(1)).any(), "pieces of both in one"


def test_the_stages_make_a_model_folder_and_are_not_run_twice(stage, tmp_path, monkeypatch):
    main, pictures = script(STAGES / "__main__.py"), stage("pictures")
    reader = stage("reader")
    monkeypatch.setattr(pictures, "PART", 4)
    monkeypatch.setattr(reader, "PART", 4)
    monkeypatch.setattr(reader, "lengths", lambda chance: (16, 4))
    monkeypatch.setattr(reader, "VIDEOS_A_STEP", {"visual": 2, "both": 2})
    monkeypatch.setattr(main, "VIDEOS", 4)
    monkeypatch.setattr(main, "STEPS", dict.fromkeys(main.STEPS, 2))
    folder = tmp_path / "made"
    main.main(folder)
    learnt = [torch.load(tmp_path / "made.work" / f"{n}.pt") for n in ("language", "fluency")]
    assert torch.equal(*(one[main.WORDS] for one in learnt)), "the reader learnt other words"
    model = registry.load(folder)
    assert torch.equal(model.state_dict()[main.WORDS], learnt[1][main.WORDS].half().float())
    assert model.position_embedding.weight.shape == (32, 96)
    assert (folder / "model.safetensors").stat().st_size < 12e6
    before = (tmp_path / "made.work" / "reader.pt").stat().st_mtime_ns
    folder.rename(tmp_path / "first")
    main.main(folder)
    assert (tmp_path / "made.work" / "reader.pt").stat().st_mtime_ns == before
    main.main(folder)  # has nothing left to do, and refuses nothing


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
    far = torch.cdist(shown[:, 8:] * 255, paint)
    assert far[nameless].min() >= pictures.FOREIGN
    names = [pictures.COLOURS[int(k)] for k in shown[~nameless, 0]]
    due = torch.tensor([pictures.PAINT[name] for name in names]) / 255
    assert torch.allclose(shown[~nameless, 8:], due.float())
