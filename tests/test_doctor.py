"""`malmm doctor` looks at everything, and says what to do about what is missing."""

import json

import pytest

from malmm_cli import hub, pipeline


def rows(malmm):
    return {row["what"]: row for row in json.loads(malmm("doctor", "--json").out)}


def test_everything_is_looked_at(malmm):
    found = rows(malmm)
    assert list(found)[:4] == ["python", "torch", "transformers", "device"]
    assert {"pyav", "ffmpeg", "decord", "cache", *hub.KNOWN} <= found.keys()
    assert "h264" in found["pyav"]["found"]
    assert found["tiny"]["good"]
    assert all(row["good"] or row["advice"] for row in found.values())
    plain = malmm("doctor").out
    assert all(row["found"] in plain for row in found.values())


@pytest.mark.parametrize(
    ("free", "good", "says"),
    [(10**12, True, "fits in float32, bfloat16, float16"), (9 * 10**9, False, "does not fit")],
)
def test_what_would_fit(malmm, monkeypatch, free, good, says):
    monkeypatch.setattr(hub, "machine_memory", lambda: free)
    monkeypatch.setattr("malmm_cli.doctor.pick_device", lambda: pipeline.torch.device("cpu"))
    vicuna = rows(malmm)["vicuna-7b"]
    assert vicuna["good"] is good
    assert says in vicuna["found"]
    assert good or "--quantize 4bit" in vicuna["advice"]


def test_what_is_missing_is_named(malmm, monkeypatch):
    monkeypatch.setattr("malmm_cli.media.ffmpeg.shutil.which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    ffmpeg = rows(malmm)["ffmpeg"]
    assert not ffmpeg["good"]
    assert "malmm[ffmpeg]" in ffmpeg["advice"]
