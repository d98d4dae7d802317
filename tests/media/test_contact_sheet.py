"""`malmm frames`: the list, the sheet and the dump agree with each other and with the video."""

import json
import os

from helpers.commands import SAMPLE
from helpers.media_files import HEIGHT, WIDTH, number_of, write_video
from PIL import Image


def test_text(malmm):
    done = malmm("frames", SAMPLE, "--frames", "3")
    assert (done.code, done.out) == (0, "0.000\n30.000\n59.950\n")
    assert done.err == "3 frames of 60.00 s, 320x240, read by pyav\n"
    assert malmm("frames", SAMPLE, "--frames", "3", "-q").err == ""


def test_json(malmm):
    done = malmm("frames", SAMPLE, "--fps=1", "--from=0:10", "--to=0:12", "--json")
    content = json.loads(done.out)
    assert content.keys() == {"schema", "video", "duration", "decoder", "frames", "warnings"}
    assert content["schema"] == "malmm/1"
    assert (content["video"], content["duration"]) == (str(SAMPLE), 60.0)
    assert content["decoder"] == "pyav"
    assert content["warnings"] == []
    assert content["frames"] == [
        {"seconds": seconds, "source_seconds": seconds, "width": 320, "height": 240}
        for seconds in (10.0, 11.0, 12.0)
    ]
    again = malmm("frames", SAMPLE, "--fps=1", "--from=10", "--to=12", "--format=json")
    assert again == done


def test_what_is_listed_is_what_the_model_sees(malmm):
    listed = malmm("frames", SAMPLE, "--frames=7", "-q").out.split()
    options = ["--model=tiny", "--beams=1", "--max-new-tokens=1", "--json", "-q"]
    seen = json.loads(malmm("caption", SAMPLE, "--frames=7", *options).out)["frames"]
    assert (len(listed), float(listed[0]), float(listed[-1])) == (
        seen["used"],
        seen["first"],
        seen["last"],
    )


def test_sheet(malmm, tmp_path):
    path = tmp_path / "sheet.png"
    done = malmm("frames", SAMPLE, "--frames=6", "-o", path)
    assert done.code == 0
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        # 6 thumbnails of 160x120 with a line for the time, in rows
        assert sheet.width % 164 == 0
        assert sheet.height % 138 == 0
        assert (sheet.width // 164) * (sheet.height // 138) == 6
    assert list(tmp_path.iterdir()) == [path]
    assert malmm("frames", SAMPLE, "-q", "-o", path).code == 2
    assert malmm("frames", SAMPLE, "-q", "-o", path, "--overwrite").code == 0


def test_a_sheet_has_an_end(refused):
    options = ["--frames=401", "-o", "sheet.png"]
    refused("frames", SAMPLE, *options, code=2, says="400 frames", hint="--dump")
    refused(
        "frames", SAMPLE, "-o", "sheet.jpg", code=2, says="the contact sheet must be a .png file"
    )


def test_dump(malmm, tmp_path):
    video = write_video(tmp_path / "clip.mp4", 20)
    folder = tmp_path / "frames"
    done = malmm("frames", video, "--dump", folder)
    assert done.code == 0
    assert sorted(os.listdir(folder)) == [f"{number:05}.png" for number in range(20)]
    for number in range(20):
        with Image.open(folder / f"{number:05}.png") as picture:
            assert picture.size == (WIDTH, HEIGHT)
            assert number_of(pixels_of(picture)) == number
    assert not list(tmp_path.glob(".malmm-*"))


def pixels_of(picture):
    import numpy as np

    return np.asarray(picture)


def test_dump_takes_an_empty_folder_and_no_other(malmm, refused, tmp_path):
    (tmp_path / "frames").mkdir()
    assert malmm("frames", SAMPLE, "--frames=2", "--dump", "frames").code == 0
    again = ["--frames=2", "--dump", "frames"]
    refused("frames", SAMPLE, *again, code=2, says="not an empty folder", hint="new folder")
    refused("frames", SAMPLE, "--dump", "no/such", code=2, says="no such folder: no")
    refused("frames", SAMPLE, "--dump", SAMPLE, code=2, says="not an empty folder")


def test_a_still_image_is_a_video_of_one_picture(malmm, tmp_path):
    path = tmp_path / "still.png"
    Image.new("RGB", (100, 50), "red").save(path)
    content = json.loads(malmm("frames", path, "--json").out)
    assert content["duration"] == 0
    assert [(f["seconds"], f["width"], f["height"]) for f in content["frames"]] == [(0, 100, 50)]
    options = ["--model=tiny", "--beams=1", "--max-new-tokens=1", "--json", "-q"]
    result = json.loads(malmm("caption", path, *options).out)
    assert result["frames"] == {"used": 1, "first": 0.0, "last": 0.0, "duration": 0.0}
