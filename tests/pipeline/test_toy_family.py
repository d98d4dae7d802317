"""The pipeline with a family of its own kind: two frames a feature, a halo, a rider."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers.events import Recorded
from helpers.toy_family import SPEC, Toy, toy_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import malmm_cli
from malmm_cli import media
from malmm_cli.errors import MediaError, ModelError
from malmm_cli.events import SILENT
from malmm_cli.pipeline import memory_file, remembering
from malmm_cli.pipeline.feature_cache import FeatureCache
from malmm_cli.pipeline.feature_files import checksum
from malmm_cli.pipeline.features import encode
from malmm_cli.pipeline.watch import watch_whole
from malmm_cli.settings import changed
from malmm_cli.train.checks import choose_frames
from malmm_cli.train.features import Clip, ClipFeatures

SETTINGS = changed(SPEC.defaults["caption"], frames=11, memory=3)
PROMPTS = ["what moves?", "how many are red?"]


@pytest.fixture
def cached(tmp_path):
    """A model that keeps features, of four frames in a file."""
    return toy_model(cache=FeatureCache(tmp_path / "features"))


def features_of(clip, model):
    found = encode(clip, model, SETTINGS)
    tensors = [chunk.as_dict() for chunk in found.chunks]
    return {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}


def same(ours, theirs, tolerance=2e-5):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=0)


def same_context(ours, theirs, tolerance=2e-5):
    same({"tokens": ours.tokens, **ours.extras}, {"tokens": theirs.tokens, **theirs.extras})


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_chunks_do_not_show(clip, chunk):
    due = features_of(clip, toy_model(chunk=100))
    assert len(due["rows"]) == 6
    first, last = due["seconds"][-1]
    assert first == last, "the last frame stands for two"
    assert (due["seconds"][:-1, 0] < due["seconds"][:-1, 1]).all()
    same(features_of(clip, toy_model(chunk=chunk)), due)


def test_results_count_frames(clip):
    events = Recorded()
    answers = malmm_cli.ask(
        clip, PROMPTS, model=toy_model(), settings=changed(SETTINGS, prompt="{}"), events=events
    )
    assert [answer.frames for answer in answers] == [11, 11]
    assert events.counts == [(4, 12), (8, 12), (12, 12), (2, 2)]
    info = media.probe(clip)
    assert (answers[0].first, answers[0].last) == (info.seconds[0], info.seconds[-1])
    assert malmm_cli.caption(clip, model=toy_model(), settings=SETTINGS, frames=12).frames == 12
    assert malmm_cli.caption(clip, model=toy_model(), settings=SETTINGS, frames=1).frames == 1


def test_prompts_in_groups_are_prompts_at_once(clip, monkeypatch):
    _, due = watch_whole(clip, PROMPTS, toy_model(), SETTINGS)
    assert due.extras["mask"].sum(1).tolist() == [2 + 8, 4 + 8]
    monkeypatch.setattr("malmm_cli.pipeline.watch.prompts_at_once", lambda *_, **about: 1)
    _, found = watch_whole(clip, PROMPTS, toy_model(), SETTINGS)
    same_context(found, due)


def test_extras_are_checked_for_nan(clip, monkeypatch):
    context = Toy.context

    def broken(self, memory):
        found = context(self, memory)
        return replace(found, extras={**found.extras, "deep": found.extras["deep"] * torch.nan})

    monkeypatch.setattr(Toy, "context", broken)
    with pytest.raises(ModelError, match="NaN"):
        malmm_cli.caption(clip, model=toy_model(), settings=SETTINGS)


def reshape(path):
    tensors = load_file(path)
    rider = tensors["riders.deep"][..., 1:].contiguous()
    save_file({**tensors, "riders.deep": rider}, path)


def retype(path):
    tensors = load_file(path)
    save_file({**tensors, "riders.deep": tensors["riders.deep"].float()}, path)


def rename(path):
    tensors = load_file(path)
    rider = tensors.pop("riders.deep")
    save_file({**tensors, "riders.more": rider}, path)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("damage", [reshape, retype, rename, flip])
def test_damaged_features_are_made_again(clip, cached, damage, number, monkeypatch):
    due = features_of(clip, cached)
    assert due["riders.deep"].dtype == torch.float16
    entry = next(iter(cached.cache.entries()))
    entry.check(SPEC)
    assert (entry.frames, entry.files) == (6, 3)
    damage(entry.path / f"{number:06}.safetensors")
    with monkeypatch.context() as patch:
        encoded, right = [], Toy.encode
        patch.setattr(Toy, "encode", lambda net, *x: encoded.append(len(x[0])) or right(net, *x))
        same(features_of(clip, cached), due)
        assert encoded, "nothing was noticed"
        if damage is flip and number == 2:  # the others are used, and encode gets their halo
            assert encoded == [6, 4]
        del encoded[:]
        same(features_of(clip, cached), due)
        assert not encoded


def test_riders_too_large_for_half_precision_are_not_kept(clip, cached, monkeypatch):
    encode_right = Toy.encode

    def large(net, frames, seconds):
        features = encode_right(net, frames, seconds)
        return features._replace(riders={"deep": features.riders["deep"] * 1e6})

    monkeypatch.setattr(Toy, "encode", large)
    found = encode(clip, cached, SETTINGS)
    assert found.chunks[0].riders["deep"].dtype == torch.float32
    assert any("too large for half precision" in warning for warning in found.warnings)
    assert not cached.cache.entries()


@pytest.mark.parametrize("policy", ["mbc", "fifo", "random", "uniform"])
def test_a_memory_file_gives_the_same_context(clip, tmp_path, policy):
    model, settings = toy_model(), changed(SETTINGS, policy=policy)
    _, due = watch_whole(clip, PROMPTS, model, settings)
    remembering.remember(clip, model, settings).write(tmp_path / "a.malmm")
    kept = memory_file.read_memory_file(tmp_path / "a.malmm", model)
    assert (kept.frames, kept.slots.shape[0]) == (11, 4)
    assert int(kept.counts[:, 0].sum()) == (4 if policy == "fifo" else 6)
    _, found = remembering.recall(kept, PROMPTS, model, settings)
    torch.testing.assert_close(found.tokens, due.tokens, atol=2e-3, rtol=0)
    torch.testing.assert_close(found.extras["deep"], due.extras["deep"], atol=2e-3, rtol=0)
    again = malmm_cli.caption(tmp_path / "a.malmm", model=model)
    assert again.frames == 11
    assert again.text


def test_a_memory_file_holds_riders(clip, tmp_path):
    path, model = tmp_path / "a.malmm", toy_model()
    remembering.remember(clip, model, SETTINGS).write(path)
    with safe_open(path, framework="pt") as file:
        known = file.metadata()
    tensors = load_file(path)
    assert tensors["riders.deep"].dtype == torch.float16
    rider = tensors.pop("riders.deep")
    for wrong in (
        {},
        {"riders.more": rider},
        {"riders.deep": rider, "riders.more": rider.clone()},
        {"riders.deep": rider.float()},
        {"riders.deep": rider[..., 1:].contiguous()},
        {"riders.deep": rider[1:].contiguous()},
        {"riders.deep": rider * torch.inf},
        {"riders.deep": rider + 1},
    ):
        held = {**tensors, **wrong}
        order = ("slots", "counts", "seconds", *sorted(wrong))
        crc = checksum(*(held[name] for name in order), text=known["about"])
        moved = "riders.deep" in wrong and torch.equal(wrong["riders.deep"], rider + 1)
        save_file(held, path, known | ({} if moved else {"crc32": crc}))
        with pytest.raises(MediaError, match="is a damaged memory file"):
            memory_file.read_memory_file(path, model)


def test_training_features(clip, tmp_path):
    model, part, warnings = toy_model(), Clip(str(clip)), []
    chosen = choose_frames({part: "t"}, SETTINGS, SILENT)
    folder = tmp_path / "features"
    features = ClipFeatures(model, SETTINGS, chosen, folder, warnings.append)
    assert not features.has(part)
    made = features(part)
    assert made.rows.shape == (6, 2, SPEC.width)
    assert features.has(part)
    for name, kept in features(part).as_dict().items():
        assert torch.equal(kept, made.as_dict()[name])
    assert features.size(part) == 6 * 80
    fixed = ClipFeatures(replace(model, net=Fixed()), SETTINGS, chosen, folder, warnings.append)
    assert fixed.size(part) == 6 * 2 * (SPEC.width + SPEC.riders["deep"]) * 2
    assert not warnings


class Fixed(Toy):
    """The same, of one size."""

    spec = replace(SPEC, patches=2)
