"""Features on disk: found again, not mistaken for others, rebuilt when damaged, within bounds."""

import json
import math
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import malmm_cli
from malmm_cli import media
from malmm_cli.events import Events
from malmm_cli.files.atomic import PREFIX
from malmm_cli.models import registry
from malmm_cli.models.instructblip.defaults import CAPTION
from malmm_cli.models.instructblip.model import InstructBlip
from malmm_cli.pipeline import watch
from malmm_cli.pipeline.feature_cache import FeatureCache
from malmm_cli.settings import changed

FEW = {"frames": 6, "beams": 1, "max_new_tokens": 6}


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "features")


@pytest.fixture
def model(monkeypatch, load_once, one_thread, t5_folder, cache):
    """A model that keeps features, four frames in a file."""
    monkeypatch.setattr(registry, "load", load_once)
    return replace(malmm_cli.load(str(t5_folder)), cache=cache, chunk=4)


@pytest.fixture
def video(clip, tmp_path):
    return shutil.copy2(clip, tmp_path / "video.mp4")


@pytest.fixture
def encoded(monkeypatch):
    """How many frames each call of the encoder was given."""
    encode, told = InstructBlip.encode_frames, []
    monkeypatch.setattr(
        InstructBlip, "encode_frames", lambda net, x: told.append(len(x)) or encode(net, x)
    )
    return told


def caption(video, model, **changes):
    result = malmm_cli.caption(video, model=model, **FEW, **changes)
    return replace(result, seconds={})


def files(cache):
    (entry,) = cache.entries()
    return sorted(entry.path.glob("*.safetensors"))


def test_a_video_is_encoded_once(model, video, encoded, cache, monkeypatch):
    first = caption(video, model)
    assert encoded == [4, 2]
    monkeypatch.setattr(media, "read", None)
    assert caption(video, model) == first
    assert caption(video, model, memory=2, prompt="where?").frames == 6
    assert encoded == [4, 2]
    (entry,) = cache.entries()
    assert (entry.frames, entry.files, entry.video) == (6, 2, str(video))
    assert entry.size == sum(path.stat().st_size for path in files(cache))
    tensors = load_file(files(cache)[0])
    assert tensors["rows"].dtype == torch.float16


def test_the_same_text_as_without_a_cache(model, video):
    assert caption(video, model).text == caption(video, replace(model, cache=None)).text


def test_the_first_run_and_the_second_see_the_same(model, video):
    settings = changed(CAPTION, **FEW)

    def watched(model):
        return watch.watch_whole(video, ["what?"], model, settings)[1].tokens

    first, second = watched(model), watched(model)
    assert torch.equal(first, second)
    plain = watched(replace(model, cache=None))
    assert not torch.equal(first, plain)
    torch.testing.assert_close(first, plain, atol=1e-2, rtol=1e-2)


def test_what_is_not_the_same_is_not_mistaken(model, video, encoded, cache, vicuna_folder):
    caption(video, model)
    malmm_cli.caption(video, model=model, **{**FEW, "frames": 5})
    caption(video, model, start=0.5)
    caption(video, malmm_cli.load(str(vicuna_folder)), memory=2)  # keeps nothing
    os.utime(video, ns=(1, 1))
    caption(video, model)
    assert len(cache.entries()) == 4
    del encoded[:]
    with open(video, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(video, ns=(1, 1))
    caption(video, model)
    assert encoded == [4, 2]


def test_another_encoder_is_another(model, write_model, vicuna_folder, video, cache, encoded):
    caption(video, model)
    other = malmm_cli.load(str(write_model("flan-t5", seed=1)))
    assert other.fingerprints.encoder != model.fingerprints.encoder
    caption(video, replace(other, cache=cache, chunk=4))
    assert encoded == [4, 2] * 2
    assert len(cache.entries()) == 2
    same = malmm_cli.load(str(vicuna_folder))  # its language model is another, its encoder is not
    caption(video, replace(same, cache=cache))
    assert encoded == [4, 2] * 2
    table = malmm_cli.load(str(write_model("flan-t5", positions=3)))
    assert table.fingerprints.reader != table.fingerprints.encoder


def test_another_encoder_is_known_by_any_row(tmp_path):
    from malmm_cli.checkpoints.fingerprint import _rows_hash

    one = torch.zeros(40, 3)
    other = one.clone()
    other[20:, 1] = 1.0
    hashes = set()
    for number, tensor in enumerate((one, other)):
        path = tmp_path / f"{number}.safetensors"
        save_file({"x": tensor}, path)
        with safe_open(path, framework="pt") as file:
            hashes.add(_rows_hash(file.get_slice("x")))
    assert len(hashes) == 2


def test_with_full_hash_a_copy_is_the_same(model, video, encoded, tmp_path, cache):
    model = replace(model, cache=replace(cache, full_hash=True))
    caption(video, model)
    other = shutil.copyfile(video, tmp_path / "other.mp4")
    assert caption(other, model).frames == 6
    assert encoded == [4, 2]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def reshape(path):
    tensors = load_file(path)
    save_file({**tensors, "rows": tensors["rows"][:, 1:].contiguous()}, path)


def forget(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize("damage", [cut, flip, reshape, forget, os.unlink])
@pytest.mark.parametrize("number", [0, 1])
def test_damaged_entries_are_made_again(model, video, encoded, cache, damage, number):
    whole = caption(video, model)
    damage(files(cache)[number])
    del encoded[:]
    assert caption(video, model) == whole
    half_way = number == 1 and damage in (flip, forget)  # what a header cannot show
    assert encoded == ([2] if half_way else [4, 2])
    assert len(cache.entries()) == 1
    assert not cache.broken()
    assert caption(video, model) == whole
    assert sum(encoded) == (2 if half_way else 6)


@pytest.mark.parametrize(
    "about", ["", "[]", '{"format": "malmm-features/3"}', '{"format": "malmm-features/2"}']
)
def test_an_entry_that_says_nonsense_is_none(model, video, encoded, cache, about):
    caption(video, model)
    path = files(cache)[0].parent / "about.json"
    content = path.read_text()
    path.write_text(about)
    assert cache.entries() == []
    caption(video, model)
    assert encoded == [4, 2] * 2
    path.write_text(content.replace('"frames": 6', '"frames": 7'))
    caption(video, model)
    assert encoded == [4, 2] * 3
    assert len(cache.entries()) == 1


def test_the_entry_used_longest_ago_goes(model, video, cache):
    for start in (0.0, 0.2, 0.4):
        caption(video, model, start=start)
    for age, entry in enumerate(cache.entries()):
        os.utime(entry.path / "about.json", (10**9 - age, 10**9 - age))
    newest, middle, oldest = cache.entries()
    assert cache.find(oldest.key) == oldest
    assert [entry.key for entry in cache.entries()] == [oldest.key, newest.key, middle.key]
    small = replace(cache, limit=sum(entry.size for entry in cache.entries()) + 100)
    caption(video, replace(model, cache=small), start=0.6)
    kept = {entry.key for entry in cache.entries()}
    assert len(kept) == 3
    assert middle.key not in kept


def test_what_has_no_room_is_not_kept_and_told(model, video, cache):
    result = caption(video, replace(model, cache=replace(cache, limit=1000)))
    (warning,) = result.warnings
    assert warning.endswith("features are not cached: they take more than 1e-06 GB")
    assert list(cache.folder.iterdir()) == []
    broken = replace(model, cache=FeatureCache(cache.folder / "no" / "file"))
    (cache.folder / "no").write_text("")
    (warning,) = caption(video, broken).warnings
    assert "features are not cached: Not a directory" in warning


def test_without_a_limit_no_other_entry_is_read(model, video, cache, monkeypatch):
    """A training has thousands of clips: reading all entries for each would take hours."""
    endless = replace(cache, limit=math.inf)
    monkeypatch.setattr(FeatureCache, "entries", None)
    caption(video, replace(model, cache=endless))
    monkeypatch.undo()
    assert [entry.video for entry in cache.entries()] == [str(video)]


def test_numbers_too_large_for_half_precision(model, video, cache, monkeypatch):
    encode = InstructBlip.encode_frames
    monkeypatch.setattr(InstructBlip, "encode_frames", lambda net, x: encode(net, x) * 1e5)
    (warning,) = caption(video, model).warnings
    assert warning.endswith("values too large for half precision")
    assert cache.entries() == []


def test_what_is_stopped_leaves_nothing(model, video, cache, monkeypatch):
    class Stopping(Events):
        def progress(self, *_):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        malmm_cli.caption(video, model=model, events=Stopping(), **FEW)
    assert list(cache.folder.iterdir()) == []
    killed = cache.folder / f"{PREFIX}killed"
    fresh = cache.folder / f"{PREFIX}working"
    for folder in (killed, fresh):
        folder.mkdir()
    os.utime(killed, (0, 0))
    caption(video, model)
    assert not killed.exists()
    assert fresh.exists()


def test_two_at_once(model, video, cache, monkeypatch):
    """Another process finishes the same entry while this one is making it."""
    done = []

    class Other(Events):
        def progress(self, *_):
            if not done:
                done.append(caption(video, model))

    first = malmm_cli.caption(video, model=model, events=Other(), **FEW)
    assert replace(first, seconds={}) == done[0] == caption(video, model)
    assert len(list(cache.folder.iterdir())) == len(cache.entries()) == 1


def test_two_at_the_same_moment(model, video, cache, monkeypatch):
    rename = os.replace

    def too_late(new, path):
        shutil.copytree(new, path)
        rename(new, path)

    monkeypatch.setattr("malmm_cli.files.atomic.os.replace", too_late)
    assert caption(video, model).warnings == ()
    assert len(list(cache.folder.iterdir())) == len(cache.entries()) == 1


def test_an_entry_that_goes_while_it_is_read(model, video, cache, encoded):
    whole = caption(video, model)

    class Removing(Events):
        def progress(self, *_):
            for entry in cache.entries():
                cache.remove(entry)

    again = malmm_cli.caption(video, model=model, events=Removing(), **FEW)
    assert replace(again, seconds={}) == whole
    assert encoded == [4, 2, 2]


def test_warnings_are_kept_too(model, video, monkeypatch):
    read = media.read

    def lossy(info, seconds, size, on_warning):
        yield from list(read(info, seconds, size))[:-1]
        on_warning("damaged: the last is lost")

    monkeypatch.setattr(media, "read", lossy)
    first = caption(video, model)
    assert first.warnings == ("damaged: the last is lost",)
    assert first.frames == 5
    assert caption(video, model) == first


def test_the_command(malmm, refused, video, tmp_path, monkeypatch):
    folder = tmp_path / "kept"
    run = ("caption", video, "--model", "tiny", "--frames", "3", "--max-new-tokens", "3", "-q")
    assert malmm(*run, "--cache", folder).code == 0
    monkeypatch.setenv("MALMM_CACHE", str(folder))
    assert malmm(*run, "--fps", "4").code == 2  # --frames and --fps
    (row,) = json.loads(malmm("cache", "ls", "--json").out)
    assert (row["video"], row["model"], row["frames"]) == (str(video), "tiny", 3)
    done = malmm("cache", "ls")
    assert done.out.count("\n") == 1
    assert row["key"] in done.out
    assert done.err.startswith("1 entry, ")
    monkeypatch.setattr(
        "malmm_cli.cli.cache.sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True))
    )
    first, *rest = malmm("cache", "ls").out.splitlines()
    assert len(first) <= 80
    assert rest == ["    tiny", f"    {video}"]
    refused("cache", "rm", code=2, says="nothing to remove was given")
    refused("cache", "rm", "x", "--all", code=2, says="nothing to remove was given")
    refused("cache", "rm", "x.mp4", code=2, says="x.mp4: not in")
    monkeypatch.chdir(video.parent)
    assert malmm("cache", "rm", f"./{video.name}").out == row["key"] + "\n"
    assert malmm("cache", "ls", "--json").out == "[]\n"
    for name in ("a" * 32, ".malmm-left", "of somebody else"):
        (folder / name).mkdir()
    assert "2 entries damaged or unfinished" in malmm("cache", "ls").err
    assert malmm("cache", "rm", "--all").out == ""
    assert [path.name for path in folder.iterdir()] == ["of somebody else"]
    assert malmm(*run, "--cache-size", "inf").code == 0
    refused(*run, "--cache-size", "nan", code=2, says="cache-size")
    refused("cache", "ls", "--cache", "nope", code=2, says="nope: no such folder")
    monkeypatch.delenv("MALMM_CACHE")
    refused("cache", "ls", code=2, says="no cache folder given", hint="MALMM_CACHE")
