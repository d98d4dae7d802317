"""How pictures become numbers: what a model's folder says of it is done, or refused in a line."""

import json
import shutil

import pytest
import torch
from helpers.commands import SAMPLE

from malmm_cli.checkpoints.preprocessor import read_pixels
from malmm_cli.errors import ModelError
from malmm_cli.hub.snapshot import File, wanted
from malmm_cli.models.instructblip.load import load
from malmm_cli.pipeline import loading

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
OWN = {"image_mean": MEAN, "image_std": STD}
OTHER = {"image_mean": [0.1, 0.1, 0.1], "image_std": [0.9, 0.9, 0.9]}
CLIP = [0.48145466, 0.4578275, 0.40821073]
BOTH, VIDEOS = "processor_config.json", "video_preprocessor_config.json"
PICTURES = "preprocessor_config.json"


@pytest.fixture
def folder(vicuna_folder, tmp_path):
    """A model's folder that says nothing of pixels."""
    copy = shutil.copytree(vicuna_folder, tmp_path / "model")
    (copy / PICTURES).unlink()
    return copy


def say(folder, files, kind="instructblip"):
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": kind}))


@pytest.mark.parametrize("kind", ["instructblip", "instructblipvideo"])
@pytest.mark.parametrize(
    "files",
    [
        {PICTURES: OWN},
        {VIDEOS: OWN},
        {BOTH: {"image_processor": OWN}},
        {BOTH: {"video_processor": OWN}},
        {BOTH: OWN},
        {PICTURES: {"image_processor": OWN}},
        {PICTURES: {"video_processor": OWN}},
        {VIDEOS: {"image_processor": OWN}},
        {VIDEOS: {"video_processor": OWN, "image_processor": OTHER}},
        {BOTH: {"processor_class": "InstructBlipProcessor"}, PICTURES: OWN},
    ],
)
def test_each_place_counts_where_it_is_the_only_one(folder, files, kind):
    say(folder, files, kind)
    assert read_pixels(folder) == (MEAN, STD)


VIDEO = "InstructBlipVideoProcessor"


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("instructblip", {BOTH: {"image_processor": OWN}, PICTURES: OTHER, VIDEOS: OTHER}),
        ("instructblip", {BOTH: {"image_processor": OWN, "video_processor": OTHER}}),
        ("instructblip", {BOTH: {"video_processor": OTHER}, PICTURES: OWN, VIDEOS: OTHER}),
        ("instructblipvideo", {BOTH: {"video_processor": OWN, "image_processor": OTHER}}),
        ("instructblipvideo", {BOTH: {"image_processor": OTHER}, VIDEOS: OWN, PICTURES: OTHER}),
        ("instructblipvideo", {BOTH: {"image_processor": OTHER}, PICTURES: OWN}),
        ("instructblip", {BOTH: {"processor_class": VIDEO}, VIDEOS: OWN, PICTURES: OTHER}),
        ("instructblip", {VIDEOS: OWN, PICTURES: OTHER | {"processor_class": VIDEO}}),
    ],
)
def test_the_order_is_that_of_transformers(folder, kind, files):
    say(folder, files, kind)
    assert read_pixels(folder) == (MEAN, STD)


def test_nothing_said_is_what_is_published(folder):
    assert read_pixels(folder).mean == CLIP
    say(folder, {PICTURES: {"image_mean": None, "size": None, "rescale_factor": None}})
    assert read_pixels(folder).mean == CLIP


@pytest.mark.parametrize(
    ("told", "due"),
    [
        ({}, lambda x: (x / 255 - torch.tensor(MEAN)) / torch.tensor(STD)),
        ({"rescale_factor": 1 / 255}, lambda x: (x / 255 - torch.tensor(MEAN)) / torch.tensor(STD)),
        (
            {"rescale_factor": 1 / 127.5},
            lambda x: (x / 127.5 - torch.tensor(MEAN)) / torch.tensor(STD),
        ),
        ({"do_rescale": False}, lambda x: (x - torch.tensor(MEAN)) / torch.tensor(STD)),
        ({"do_normalize": False}, lambda x: x / 255),
        ({"do_normalize": False, "do_rescale": False}, lambda x: x),
        ({"image_mean": 0.5, "image_std": 0.5}, lambda x: x / 127.5 - 1),
        ({"size": 64, "resample": 3, "do_convert_rgb": True}, None),
        (
            {"size": [64, 64], "do_center_crop": True, "crop_size": {"height": 64, "width": 64}},
            None,
        ),
    ],
)
def test_numbers_are_what_transformers_would_make(folder, told, due):
    say(folder, {BOTH: {"image_processor": OWN | told}})
    net, seen = load(folder), []
    net.encode_pixels = seen.append
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    net.encode_frames(frames)
    due = due or (lambda x: (x / 255 - torch.tensor(MEAN)) / torch.tensor(STD))
    torch.testing.assert_close(
        seen[0], due(frames.float()).permute(0, 3, 1, 2), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("name", [BOTH, VIDEOS, PICTURES])
@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"resample": 2}, "resample is 2, but only 3 (bicubic)"),
        ({"resample": []}, "resample is []"),
        ({"size": {"height": 384, "width": 384}}, "the image encoder takes 64 × 64"),
        ({"size": {"shortest_edge": 64}}, "the image encoder takes 64 × 64"),
        ({"size": "big"}, "the image encoder takes 64 × 64"),
        ({"do_center_crop": True, "crop_size": 32}, "crop_size is 32"),
        ({"do_pad": True}, "do_pad is not supported"),
        ({"do_normalize": "yes"}, "do_normalize must be true or false"),
        ({"do_rescale": []}, "do_rescale must be true or false"),
        ({"image_mean": [1, 2]}, "image_mean must be three numbers"),
        ({"image_std": [1, 0, 1]}, "image_std must be three numbers other than 0"),
        ({"image_std": [True, True, True]}, "image_std must be three numbers"),
        ({"image_mean": [10**400, 0, 0]}, "image_mean must be three numbers"),
        ({"rescale_factor": 0}, "rescale_factor must be a number other than 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor must be a number"),
    ],
)
def test_what_cannot_be_done_is_refused(folder, name, told, says):
    say(folder, {name: {"video_processor": told} if name == BOTH else told})
    with pytest.raises(ModelError) as caught:
        read_pixels(folder, (64, 64))
    assert name in caught.value.message
    assert says in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", [BOTH, VIDEOS, PICTURES])
@pytest.mark.parametrize(
    "told",
    [
        {"image_std": [1e-300] * 3},
        {"image_std": 5e-324, "rescale_factor": 1e6},
        {"image_std": [0.2, -1e-6, 0.2]},
        {"rescale_factor": 1e-300},
        {"rescale_factor": 5e-324},
        {"image_mean": [1e6] * 3, "image_std": [1e-6] * 3},
    ],
)
def test_numbers_that_no_encoder_can_hold_are_refused(folder, name, told):
    say(folder, {name: {"image_processor": told}})
    with pytest.raises(ModelError, match="out of range") as error:
        read_pixels(folder)
    assert str(folder / name) in str(error.value)


def test_a_refusal_is_one_line(refused, folder):
    say(folder, {BOTH: {"image_processor": [1]}})
    refused("caption", SAMPLE, "-q", "--model", folder, code=1, says="must be JSON objects")


def test_caches_and_memory_files_know_the_difference(folder):
    before = loading.load(str(folder))
    known = before.fingerprints
    names = known.encoder, known.weights, known.reader
    say(folder, {BOTH: {"image_processor": OWN}})
    after = loading.load(str(folder))
    other = after.fingerprints
    assert not {*names} & {other.encoder, other.weights, other.reader}
    assert after.net.pixel_mean.tolist() == pytest.approx(MEAN)


def test_they_are_copied_and_fetched(folder, tmp_path):
    from malmm_cli.checkpoints.layout import copy_beside_weights

    say(folder, {BOTH: {}, VIDEOS: {}, PICTURES: {}})
    (tmp_path / "copy").mkdir()
    copy_beside_weights(folder, tmp_path / "copy")
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    listed = {name: File(name, 1, "0" * 40) for name in names}
    fetched = {file.name for file in wanted(listed, "owner/name", lambda name: listed[name])}
    for name in (BOTH, VIDEOS, PICTURES):
        assert (tmp_path / "copy" / name).is_file()
        assert name in fetched
