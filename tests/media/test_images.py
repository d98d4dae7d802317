"""Images and animations: names that are no patterns, transparency, limits, what is cut off."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.image_files import (
    Part,
    composed,
    on_white,
    packed,
    png_chunk,
    set_clap,
    set_display,
    write_apng,
    write_gif,
    write_odd_apng,
    write_png,
    write_tiles,
    write_webp,
)
from helpers.media_files import number_of, picture, set_matrix, write_video
from PIL import Image, ImageCms

from malmm_cli import media
from malmm_cli.errors import MediaError
from malmm_cli.media import ffmpeg, packets, pillow
from malmm_cli.media.sandbox import Limits, Sandbox

BOTH = pytest.mark.parametrize("decoder", ["auto", "ffmpeg"])
needs_decord = pytest.mark.skipif(
    find_spec("decord") is None, reason="decord has no wheel for this machine"
)
SIZE = (24, 16)


@pytest.fixture(autouse=True)
def _own_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the program of the extra, which is the same everywhere."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


def shown(path: Path | str, decoder: str = "auto") -> list[np.ndarray]:
    info = media.probe(path, decoder)
    return [frame.pixels.astype(int) for frame in media.read(info, info.seconds.tolist())]


def failure(path: Path, decoder: str = "auto") -> MediaError:
    with pytest.raises(MediaError) as caught:
        media.probe(path, decoder)
    return caught.value


# --- names


def greys(count: int = 6) -> list[Image.Image]:
    return [Image.new("RGB", SIZE, (40 * number,) * 3) for number in range(count)]


def write_greys(path: Path, kind: str) -> Path:
    first, *rest = greys()
    if kind == "mjpeg":
        data = io.BytesIO()
        for image in (first, *rest):
            image.save(data, "JPEG")
        path.write_bytes(data.getvalue())
    else:
        first.save(path, kind, save_all=True, append_images=rest, duration=100)
    return path


PATTERNS = ["%d", "50% off %03d", "a?b*", "{x,y}", "[a-z]", "new\nline"]


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
@BOTH
@pytest.mark.parametrize("kind", ["gif", "png", "mjpeg", "avif"])
def test_no_name_is_a_pattern(tmp_path: Path, kind: str, decoder: str) -> None:
    plain = write_greys(tmp_path / f"plain.{kind}", kind)
    expected = [picture.mean() for picture in shown(plain, decoder)]
    assert len(expected) == 6
    folder = tmp_path / "100% done {now}"
    folder.mkdir()
    for name in (*(f"{pattern}.{kind}" for pattern in PATTERNS), "%d", f"{folder.name}/x.{kind}"):
        path = tmp_path / name
        shutil.copy(plain, path)
        assert [picture.mean() for picture in shown(path, decoder)] == expected, name


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
@pytest.mark.parametrize("decoder", ["auto", "pyav", "ffmpeg"])
@pytest.mark.parametrize("name", ["n%d.jpg", "n?.jpg", "n*.jpg", "n{1,2}.jpg", "n[12].jpg"])
def test_garbage_is_not_read_from_its_neighbours(tmp_path: Path, decoder: str, name: str) -> None:
    for number, image in enumerate(greys(2), 1):
        image.save(tmp_path / f"n{number}.jpg")
    (tmp_path / name).write_bytes(b"garbage, no picture at all" * 50)
    assert failure(tmp_path / name, decoder).kind in {"NotAVideo", "NoPicture"}


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
def test_a_name_says_nothing_in_the_log_of_the_program(tmp_path: Path) -> None:
    line = "\n[x @ 0x1] n: 0 pts: 7 pts_time:7 fmt:rgb24 sar:1/1 s:2x2 i:P\n.h264"
    (tmp_path / line).parent.mkdir()
    path = write_video(tmp_path / "a.h264", 5, container="h264").rename(tmp_path / line)
    assert [number_of(pixels) for pixels in shown(path, "ffmpeg")] == [0, 1, 2, 3, 4]


@needs_decord
@pytest.mark.parametrize("name", ["%d.mp4", "a:b.mp4", "[1]*?.mp4", "http:x.mp4"])
def test_decord_takes_any_name(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / "plain.mp4", 5).rename(tmp_path / name)
    assert [number_of(pixels) for pixels in shown(path, "decord")] == [0, 1, 2, 3, 4]


# --- animations


def random_parts(seed: int, disposals: int, *, opaque: bool = False) -> list[Part]:
    """Partial pictures at even places, some of whose pixels are transparent."""
    draw = np.random.default_rng(seed)
    parts = []
    for number in range(6):
        width, height = draw.integers(1, np.array(SIZE) // 2 + 1)
        x, y = draw.integers(0, np.array(SIZE) - (width, height) + 1) // 2 * 2
        if number == 0:
            (x, y), (width, height) = (0, 0), SIZE
        pixels = draw.integers(0, 256, (height, width, 4))
        if number == 1 or opaque:
            pixels[..., 3] = 255
        dispose, blend = int(draw.integers(disposals)), bool(draw.integers(2))
        length = int(draw.integers(20, 200))
        parts.append(Part(int(x), int(y), pixels, length, dispose * (number > 0), blend))
    return parts


@pytest.mark.parametrize("seed", range(3))
def test_an_animated_webp_is_composed(tmp_path: Path, seed: int) -> None:
    parts = random_parts(seed, 2)[1:]  # the first does not fill the canvas
    path = write_webp(tmp_path / "a.webp", parts, SIZE)
    for ours, canvas in zip(shown(path), composed(parts, SIZE), strict=True):
        assert np.abs(ours - on_white(canvas)).max() <= 2  # libwebp's own rounding


def test_where_a_webp_draws_nothing_it_is_white(tmp_path: Path) -> None:
    parts = random_parts(7, 2, opaque=True)[1:]
    path = write_webp(tmp_path / "a.webp", parts, SIZE, alpha=False)
    for ours, canvas in zip(shown(path), composed(parts, SIZE), strict=True):
        assert np.abs(ours - on_white(canvas)).max() <= 1


def test_pictures_of_a_webp_that_ask_for_no_time_are_all_shown(tmp_path: Path) -> None:
    parts = [part._replace(milliseconds=time) for part, time in zip(
        random_parts(1, 1)[:4], (0, 10, 0, 300), strict=True
    )]  # fmt: skip
    path = write_webp(tmp_path / "a.webp", parts, SIZE)
    info = media.probe(path)
    assert info.seconds == pytest.approx([0, 0.1, 0.2, 0.3])
    assert info.duration == pytest.approx(0.6)
    assert len(shown(path)) == 4


def test_a_webp_that_breaks_off_gives_what_is_there(tmp_path: Path) -> None:
    parts = random_parts(1, 1)
    path = write_webp(tmp_path / "a.webp", parts, SIZE)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"ANMF")
    data[last + 40 : -8] = b"\xff" * (len(data) - last - 48)
    path.write_bytes(data)
    info, said = media.probe(path), []
    frames = list(media.read(info, info.seconds.tolist(), None, said.append))
    assert len(frames) == 5
    assert len(said) == 1
    assert "damaged" in said[0]


@BOTH
@pytest.mark.parametrize("with_default", [False, True])
def test_an_apng_is_composed(tmp_path: Path, decoder: str, with_default: bool) -> None:
    parts = random_parts(3, 3)
    default = np.full((SIZE[1], SIZE[0], 4), 99) if with_default else None
    path = write_apng(tmp_path / "a.png", parts, SIZE, default)
    for ours, canvas in zip(shown(path, decoder), composed(parts, SIZE), strict=True):
        assert np.abs(ours - on_white(canvas)).max() <= 4
    assert media.probe(path).duration == pytest.approx(
        sum(part.milliseconds for part in parts) / 1000, abs=1e-3
    )


@pytest.mark.parametrize(("bits", "colour"), [(1, 0), (2, 0), (8, 0), (8, 2), (16, 6)])
def test_an_apng_of_any_colours_is_composed(tmp_path: Path, bits: int, colour: int) -> None:
    """FFmpeg composes some kinds wrongly or not at all, and Pillow others."""
    parts = random_parts(5, 3, opaque=colour != 6)
    if colour == 0:
        levels = [np.repeat(part.pixels[..., :1] * (2**bits - 1) // 255, 3, 2) for part in parts]
        parts = [
            part._replace(pixels=np.dstack([level * 255 // (2**bits - 1), part.pixels[..., 3]]))
            for part, level in zip(parts, levels, strict=True)
        ]
    path = write_odd_apng(tmp_path / "a.png", parts, SIZE, bits, colour)
    for ours, canvas in zip(shown(path), composed(parts, SIZE), strict=True):
        assert np.abs(ours - on_white(canvas)).max() <= 3


def test_pictures_of_an_apng_that_ask_for_no_time_last_as_in_browsers(tmp_path: Path) -> None:
    times = (0, 10, 11, 300)
    parts = [
        part._replace(milliseconds=time)
        for part, time in zip(random_parts(1, 1)[:4], times, strict=True)
    ]
    info = media.probe(write_apng(tmp_path / "a.png", parts, SIZE))
    assert info.seconds == pytest.approx([0, 0.1, 0.2, 0.211])
    assert info.duration == pytest.approx(0.511)


def test_an_apng_that_breaks_off_gives_what_is_there(tmp_path: Path) -> None:
    path = write_odd_apng(tmp_path / "a.png", random_parts(2, 1, opaque=True), SIZE, 8, 2)
    data = path.read_bytes()
    for length in range(40, len(data), 97):
        path.write_bytes(data[:length])
        try:
            assert len(shown(path)) <= 6
        except MediaError as error:
            assert error.kind in {"NotAVideo", "NoPicture"}  # noqa: PT017


@BOTH
def test_a_gif_is_composed_whatever_its_delays(
    tmp_path: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs of other versions read delays of 1/100 s differently."""
    monkeypatch.undo()  # the system's program too, if there is one
    draw = np.random.default_rng(5)
    frames, parts = [], []
    for delay in (0, 1, 1, 2, 10, 1):
        indices = draw.integers(0, 3, (8, 12)) * 1
        x, y = int(draw.integers(0, 12)), int(draw.integers(0, 8))
        frames.append((x, y, indices, delay))
        grey = np.repeat(indices[..., None], 3, 2)
        parts.append(Part(x, y, np.dstack([grey, 255 * (indices != 1)])))
    path = write_gif(tmp_path / "a.gif", frames, SIZE)
    for ours, canvas in zip(shown(path, decoder), composed(parts, SIZE), strict=True):
        assert (ours == on_white(canvas)).all()


@BOTH
def test_an_animated_avif_moves(tmp_path: Path, decoder: str) -> None:
    path = write_greys(tmp_path / "a.avif", "avif")
    info = media.probe(path, decoder)
    assert info.duration == pytest.approx(0.6)
    assert [round(pixels.mean() / 40) for pixels in shown(path, decoder)] == list(range(6))


def test_one_picture_is_a_still(tmp_path: Path) -> None:
    for name in ("a.avif", "a.webp", "a.png"):
        Image.new("RGB", SIZE, "red").save(tmp_path / name)
        info = media.probe(tmp_path / name)
        assert (len(info.seconds), info.duration) == (1, 0.0), name


def test_tiles_are_one_picture_or_none(tmp_path: Path) -> None:
    path = write_tiles(tmp_path / "a.avif", ["red", "lime", "blue", "white"], 64)
    (pixels,) = shown(path)
    assert pixels.shape == (128, 128, 3)
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.abs(corners - [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3]).max() < 8
    for decoder in ("pyav", "ffmpeg"):
        assert failure(path, decoder).kind == "Unsupported"
        assert "tiles" in failure(path, decoder).message


def test_a_colour_profile_is_no_crash(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name in ("a.png", "a.jpg", "a.webp", "a.tiff", "a.avif"):
        Image.new("RGB", SIZE, "red").save(tmp_path / name, icc_profile=profile)
    code = (
        "import gc, sys\nfrom malmm_cli import media\nfor path in sys.argv[1:]:\n"
        "    for _ in range(3):\n        info = media.probe(path)\n"
        "        assert len(list(media.read(info, info.seconds))) == 1\n"
        "        gc.collect()\n"
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --- transparency


def hidden_red(kind: str = "RGBA") -> Image.Image:
    """Red that is transparent, half so, and a quarter so; the rest is blue."""
    pixels = np.full((*SIZE[::-1], 4), (0, 0, 255, 255), np.uint8)
    for column, alpha in enumerate((0, 128, 191)):
        pixels[:, 4 * column : 4 * column + 4] = (255, 0, 0, alpha)
    return Image.fromarray(pixels).convert(kind)


@BOTH
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.webp", {"lossless": True, "exact": True}),
        ("a.webp", {"quality": 100, "exact": True}),
        ("a.tiff", {}),
        ("a.tiff", {"compression": "tiff_lzw"}),
    ],
)
def test_white_is_under_what_is_transparent(
    tmp_path: Path, name: str, options: dict[str, object], decoder: str
) -> None:
    image = hidden_red()
    image.save(tmp_path / name, **options)
    (pixels,) = shown(tmp_path / name, decoder)
    assert np.abs(pixels - on_white(np.asarray(image)))[:, [1, 6, 10, 20]].max() <= (
        3 if "quality" in options else 0
    )


@BOTH
def test_white_is_under_every_shade(tmp_path: Path, decoder: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (shown(tmp_path / "a.png", decoder)[0] == on_white(pixels)).all()


@BOTH
def test_white_is_under_a_transparent_colour(tmp_path: Path, decoder: str) -> None:
    """PNG with a palette, grey and RGB with one colour that is not shown."""
    palette = Image.new("P", SIZE, 1)
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "p.png", transparency=b"\xff\x80\xff")
    assert (shown(tmp_path / "p.png", decoder)[0] == (255, 127, 127)).all()
    Image.new("L", SIZE, 7).save(tmp_path / "l.png", transparency=7)
    Image.new("RGB", SIZE, "red").save(tmp_path / "rgb.png", transparency=(255, 0, 0))
    Image.new("LA", SIZE, (0, 51)).save(tmp_path / "la.png")
    assert (shown(tmp_path / "l.png", decoder)[0] == 255).all()
    assert (shown(tmp_path / "rgb.png", decoder)[0] == 255).all()
    assert (shown(tmp_path / "la.png", decoder)[0] == 204).all()


def grey_png(path: Path, depth: int, values: np.ndarray, hidden: int) -> Path:
    """Write grey of 1, 2 or 4 bits, one value of which is not shown."""
    bits = values[..., None] >> np.arange(depth)[::-1] & 1
    rows = np.packbits(bits.reshape(len(values), -1), axis=1)
    head = struct.pack(">IIBBBBB", *values.shape[::-1], depth, 0, 0, 0, 0)
    chunks = (b"IHDR", head), (b"tRNS", struct.pack(">H", hidden)), (b"IDAT", packed(rows))
    body = b"".join(png_chunk(*chunk) for chunk in (*chunks, (b"IEND", b"")))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_white_is_under_a_transparent_grey_of_few_bits(tmp_path: Path, depth: int) -> None:
    """FFmpeg does not hide it."""
    values = np.arange(24 * 16).reshape(16, 24) % 2**depth
    for hidden in range(2**depth):
        path = grey_png(tmp_path / "a.png", depth, values, hidden)
        right = np.where(values == hidden, 255, values * 255 // (2**depth - 1))
        (pixels,) = shown(path)
        assert (pixels == right[..., None]).all()
    for decoder in ("pyav", "ffmpeg"):
        error = failure(path, decoder)
        assert error.kind == "Unsupported"
        assert "--decoder auto" in (error.hint or "")


def write_icon(path: Path, bits: int) -> Path:
    """Write a bitmap, red and hidden by its mask on the left, blue on the right."""
    right = np.arange(48) >= 24
    row = {
        24: np.where(right[:, None], (255, 0, 0), (0, 0, 255)).astype(np.uint8).tobytes(),
        8: right.astype(np.uint8).tobytes(),
        1: np.packbits(right).tobytes() + b"\0\0",
    }[bits]
    palette = bytes([0, 0, 255, 0, 255, 0, 0, 0]) + bytes(4 * (2**bits - 2)) if bits < 9 else b""
    body = struct.pack("<IiiHHIIiiII", 40, 48, 96, 1, bits, 0, 0, 0, 0, 0, 0) + palette
    body += row * 48 + (np.packbits(~right).tobytes() + b"\0\0") * 48
    entry = struct.pack("<BBBBHHII", 48, 48, 0, 0, 1, bits, len(body), 22)
    path.write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + body)
    return path


@pytest.mark.parametrize("bits", [1, 8, 24])
def test_white_is_under_what_the_mask_of_an_icon_hides(tmp_path: Path, bits: int) -> None:
    """FFmpeg does not read it."""
    path = write_icon(tmp_path / "a.ico", bits)
    assert media.probe(path).duration == 0
    (pixels,) = shown(path)
    assert (pixels[:, :24] == 255).all()
    assert (pixels[:, 24:] == (0, 0, 255)).all()
    for decoder in ("pyav", "ffmpeg"):
        assert failure(path, decoder).kind == "Unsupported"
        assert "--decoder auto" in (failure(path, decoder).hint or "")


def test_a_gif_of_one_picture_is_a_still(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    Image.new("RGB", (32, 24), "red").save(path)
    for decoder in ("auto", "pyav", "ffmpeg"):
        assert media.probe(path, decoder).duration == 0


@pytest.mark.parametrize("decoder", ["auto", "pyav", "ffmpeg"])
def test_an_icon_is_a_still(tmp_path: Path, decoder: str) -> None:
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "a.ico")
    info = media.probe(tmp_path / "a.ico", decoder)
    assert (len(info.seconds), info.duration) == (1, 0)
    (pixels,) = shown(tmp_path / "a.ico", decoder)
    assert (pixels == 255).all()


def test_what_only_auto_reads_is_told_so(tmp_path: Path) -> None:
    """Programs of FFmpeg 9 read it too."""
    path = write_webp(tmp_path / "a.webp", random_parts(1, 2), SIZE)
    error = failure(path, "pyav")
    assert error.kind == "NoPicture"
    assert error.hint == "--decoder auto reads it"
    (tmp_path / "b.webp").write_bytes(path.read_bytes()[:60])
    assert failure(tmp_path / "b.webp", "pyav").hint is None


def write_transparent(path: Path, codec: str, form: str, alpha: int) -> Path:
    """Write three pictures of red that is transparent on the left."""
    pixels = np.full((64, 96, 4), (255, 0, 0, alpha), np.uint8)
    pixels[:, :48, 3] = 0
    with av.open(str(path), "w") as output:
        options = {"auto-alt-ref": "0"} if codec.startswith("libvpx") else {}
        stream = output.add_stream(codec, rate=5, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, form
        if codec.startswith("libvpx"):
            stream.metadata["alpha_mode"] = "1"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=form)
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


CODECS = [
    ("a.mov", "qtrle", "argb"),
    ("a.mov", "png", "rgba"),
    ("a.mov", "png", "rgba64be"),
    ("a.mov", "png", "ya8"),
    ("a.mov", "prores_ks", "yuva444p10le"),
    ("a.mkv", "ffv1", "bgra"),
    ("a.mkv", "ffv1", "yuva420p"),
    ("a.mkv", "ffv1", "yuva420p10le"),
    ("a.avi", "utvideo", "gbrap"),
    ("a.webm", "libvpx-vp9", "yuva420p"),
    ("a.webm", "libvpx", "yuva420p"),
]


@BOTH
@pytest.mark.parametrize(("name", "codec", "form"), CODECS)
def test_white_is_under_videos(
    tmp_path: Path, name: str, codec: str, form: str, decoder: str
) -> None:
    path = write_transparent(tmp_path / name, codec, form, 128)
    frames = shown(path, decoder)
    assert len(frames) == 3
    right = (165, 165, 165) if form == "ya8" else (255, 127, 127)
    for pixels in frames:
        assert np.abs(pixels[32, 8] - 255).max() <= 2
        assert np.abs(pixels[32, 88] - right).max() <= 4


@BOTH
def test_transparent_webm_is_read_from_any_place(tmp_path: Path, decoder: str) -> None:
    """Its decoder is another one than the seek knows of."""
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libvpx-vp9", rate=25, options={"cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuva420p"
        stream.codec_context.gop_size = 10
        stream.metadata["alpha_mode"] = "1"
        for number in range(120):
            pixels = np.dstack([picture(number), np.full((64, 96), 255, np.uint8)])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p")
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    info = media.probe(path, decoder)
    frames = media.read(info, info.seconds[[3, 60, 61, 119]])
    assert [number_of(frame.pixels) for frame in frames] == [3, 60, 61, 119]


@needs_decord
def test_decord_refuses_what_is_transparent(tmp_path: Path) -> None:
    path = write_transparent(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", 128)
    assert "transparency" in failure(path, "decord").message


def test_hidden_colours_do_not_bleed_where_pixels_are_not_square(tmp_path: Path) -> None:
    for decoder in ("auto", "ffmpeg"):
        path = tmp_path / "a.mov"
        with av.open(str(path), "w") as output:
            stream = output.add_stream("qtrle", rate=5)
            stream.width, stream.height, stream.pix_fmt = 24, 16, "argb"
            stream.codec_context.sample_aspect_ratio = 2
            pixels = np.full((16, 24, 4), (0, 255, 0, 0), np.uint8)
            pixels[:, 12:] = (255, 255, 255, 255)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="argb")
            frame.pts = 0
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        (seen,) = shown(path, decoder)
        assert seen.shape == (16, 48, 3)
        assert seen.min() == 255


def test_transparency_of_avif(tmp_path: Path) -> None:
    first, *rest = [hidden_red()] * 3
    first.save(tmp_path / "a.avif", quality=100)
    first.save(tmp_path / "b.avif", quality=100, save_all=True, append_images=rest, duration=100)
    for name, count in (("a.avif", 1), ("b.avif", 3)):
        frames = shown(tmp_path / name)
        assert len(frames) == count
        for pixels in frames:
            assert np.abs(pixels[8, [1, 6]] - [(255,) * 3, (255, 127, 127)]).max() <= 6
        for decoder in ("pyav", "ffmpeg"):
            assert failure(tmp_path / name, decoder).kind == "Unsupported"


# --- limits


def gif_bomb(path: Path, side: int) -> Path:
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    dot = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    path.write_bytes(head + (b"\x21\xf9\x04\0\x01\0\0\0" + dot) * 400 + b";")
    return path


def huge_headers(folder: Path) -> list[Path]:
    """Small files of all sorts that say they are 60,000 × 60,000."""
    side, paths = 60_000, [gif_bomb(folder / "a.gif", 60_000)]
    paths.append(write_png(folder / "a.png", (side, side), png_chunk(b"IDAT", b"")))
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    contents = {
        "a.bmp": b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54) + header + bytes(1000),
        "a.ppm": b"P6 60000 60000 255\n" + bytes(1000),
    }
    jpeg = io.BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    data = bytearray(jpeg.getvalue())
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    contents |= {"a.jpg": bytes(data), "a.mjpeg": bytes(data) * 3}
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 200), (278, side)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    contents["a.tiff"] = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(1000)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    parts = [Part(0, 0, np.zeros((2, 2, 4)))]
    paths.append(write_webp(folder / "a.webp", parts, (16_383, 16_383)))
    return paths


def test_headers_are_believed_where_they_ask_for_too_much(tmp_path: Path) -> None:
    for path in huge_headers(tmp_path):
        for decoder in ("auto", "pyav", "ffmpeg"):
            error = failure(path, decoder)
            assert error.kind == "TooLarge", path
            assert "exceeds the limit of 100 million pixels" in error.message


def write_wide(path: Path) -> Path:
    """Write a picture of 200 × 100 in a format that FFmpeg hides the size of if it is too large."""
    if path.suffix in {".tga", ".qoi", ".pcx"}:
        Image.new("RGB", (200, 100), "red").save(path)
        return path
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=5)
        stream.width, stream.height, stream.pix_fmt = 200, 100, "gray"
        frame = av.VideoFrame.from_ndarray(np.zeros((100, 200), np.uint8), format="gray")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("decoder", ["auto", "pyav", "ffmpeg", "decord"])
@pytest.mark.parametrize("kind", ["mkv", "avi", "nut", "tga", "qoi", "pcx"])
def test_the_limit_is_named_where_ffmpeg_hides_the_size(
    tmp_path: Path, kind: str, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "decord" and find_spec("decord") is None:
        pytest.skip("decord has no wheel for this machine")
    monkeypatch.setattr(packets, "PADDING", 0)
    monkeypatch.setattr(ffmpeg, "PADDING", 0)
    path = write_wide(tmp_path / f"a.{kind}")
    with pytest.raises(MediaError, match="200 × 100 exceeds the limit of") as caught:
        media.probe(path, decoder, max_pixels=10_000)
    assert caught.value.kind == "TooLarge"


def test_the_program_says_which_size_is_beyond_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "PADDING", 0)
    monkeypatch.setattr(packets, "PADDING", 0)
    Image.new("1", (200, 100)).save(tmp_path / "a.xbm")
    for decoder in ("auto", "ffmpeg"):
        with pytest.raises(MediaError, match="200 × 100 exceeds the limit of") as caught:
            media.probe(tmp_path / "a.xbm", decoder, max_pixels=10_000)
        assert caught.value.kind == "TooLarge"


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), "red").save(tmp_path / "a.png")
    clip = write_video(tmp_path / "a.mp4", 3)
    for path, pixels in ((tmp_path / "a.png", 20_000), (clip, 96 * 64)):
        for decoder in ("auto", "ffmpeg"):
            assert media.probe(path, decoder, max_pixels=pixels)
            with pytest.raises(MediaError, match="exceeds the limit of"):
                media.probe(path, decoder, max_pixels=pixels - 1)


def test_a_higher_limit_is_passed_on(tmp_path: Path) -> None:
    """To the child, the scan, and the readers."""
    path = gif_bomb(tmp_path / "a.gif", 10_100)
    sandbox = Sandbox(Limits(pixels=110_000_000))
    try:
        info = sandbox.probe(path)
        (frame,) = sandbox.read(info, info.seconds[:1].tolist(), (8, 8))
        assert frame.pixels.shape == (8, 8, 3)
    finally:
        sandbox.close()


def test_no_warning_of_pillow_is_heard(tmp_path: Path) -> None:
    """Its own limit for one is 89 million pixels."""
    path = write_png(tmp_path / "a.png", (9900, 9900), png_chunk(b"IDAT", b""))
    tags = [(256, 64), (257, 64), (258, 8), (259, 1), (262, 1), (278, 64)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    entries += struct.pack("<HHII", 273, 4, 4_000_000_000, 200)
    (tmp_path / "a.tiff").write_bytes(
        b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + bytes(1000)
    )
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        pillow.check_header(str(path), 100_000_000)
        pillow.check_header(str(tmp_path / "a.tiff"), 100_000_000)
    assert not heard


@BOTH
def test_pictures_that_grow_in_mid_stream_are_left_out(tmp_path: Path, decoder: str) -> None:
    jpeg = io.BytesIO()
    Image.fromarray(picture(5)).save(jpeg, "JPEG")
    huge = bytearray(jpeg.getvalue())
    struct.pack_into(">HH", huge, huge.index(b"\xff\xc0") + 5, 40_000, 40_000)
    path = tmp_path / "a.mjpeg"
    path.write_bytes(jpeg.getvalue() * 3 + bytes(huge) + jpeg.getvalue() * 3)
    frames = shown(path, decoder)
    assert {number_of(pixels) for pixels in frames} == {5}
    assert 6 <= len(frames) <= 7


@BOTH
@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, kind: bytes, decoder: str
) -> None:
    text = zlib.compress(bytes(70_000_000))
    head = b"name\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0")
    body = png_chunk(b"IDAT", packed(np.zeros((16, 24, 4))))
    path = write_png(tmp_path / "a.png", SIZE, png_chunk(kind, head + text), body)
    assert failure(path, decoder).kind == "TooLarge"
    write_png(path, SIZE, png_chunk(kind, head + zlib.compress(bytes(9000))), body)
    assert len(shown(path, decoder)) == 1


# --- what is cut off


@pytest.mark.parametrize("decoder", ["auto", "ffmpeg"])
@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, 1), (0, -1, 1, 0)])
def test_the_clean_aperture_of_mp4(tmp_path: Path, decoder: str, matrix: tuple[float, ...]) -> None:
    path = set_matrix(write_video(tmp_path / "a.mp4", 3), *matrix)
    (whole,) = shown(path, decoder)[:1]
    (seen,) = shown(set_clap(path, (60, 40), (-4, 6)), decoder)[:1]
    columns, rows = (14, 22), (18, 6)  # cut off left and right, above and below
    if matrix[0] < 0:
        columns = columns[::-1]
    if matrix[0] == 0:
        columns, rows = (rows[::-1], columns) if matrix[1] > 0 else (rows, columns[::-1])
    height, width = whole.shape[:2]
    right = whole[rows[0] : height - rows[1], columns[0] : width - columns[1]]
    assert (seen == right).all()


@pytest.mark.parametrize("decoder", ["auto", "ffmpeg"])
@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"left": 10, "top": 6, "right": 4, "bottom": 2}, (82, 56)),
        ({"left": 16, "right": 16, "width": 128, "height": 64}, (128, 64)),
        ({"left": 16, "right": 16, "width": 4, "height": 1, "unit": 3}, (256, 64)),
        ({"width": 3, "height": 1, "unit": 1}, (192, 64)),
        ({"width": 3, "height": 1, "unit": 3}, (192, 64)),
        ({"width": 3, "height": 1, "unit": 4}, (192, 64)),
        ({"unit": 4}, (96, 64)),
    ],
)
def test_what_matroska_says_of_the_display(
    tmp_path: Path, decoder: str, said: dict[str, int], size: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "a.mkv", 3, muxer={"live": "1"})
    (whole,) = shown(path, decoder)[:1]
    set_display(path, **said)
    (seen,) = shown(path, decoder)[:1]
    assert seen.shape[1::-1] == size
    left, top = said.get("left", 0), said.get("top", 0)
    right, bottom = 96 - said.get("right", 0), 64 - said.get("bottom", 0)
    cut = whole[top:bottom, left:right]
    for row, column in ((2, 2), (-3, 2), (2, -3), (-3, -3)):
        assert np.abs(seen[row, column] - cut[row, column]).max() < 30


@needs_decord
def test_decord_refuses_what_is_cut_off(tmp_path: Path) -> None:
    path = set_clap(write_video(tmp_path / "a.mp4", 3), (60, 40))
    assert "cropping" in failure(path, "decord").message


@pytest.mark.parametrize("size", [(0, 40), (97, 64), (-1, 5)])
def test_an_aperture_that_makes_no_sense_is_passed_over(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = set_clap(write_video(tmp_path / "a.mp4", 3), size)
    assert shown(path)[0].shape == (64, 96, 3)


def test_broken_boxes_do_no_harm(tmp_path: Path) -> None:
    draw = random.Random(0)
    mp4 = set_clap(write_video(tmp_path / "a.mp4", 3), (60, 40))
    mkv = set_display(write_video(tmp_path / "a.mkv", 3, muxer={"live": "1"}), left=4, unit=4)
    for path in (mp4, mkv):
        data = path.read_bytes()
        begin = data.index(b"moov") if path is mp4 else 0
        end = len(data) if path is mp4 else data.index(b"\x1f\x43\xb6\x75")
        for _ in range(60):
            changed = bytearray(data)
            for _ in range(draw.randint(1, 6)):
                changed[draw.randrange(begin, end)] = draw.randrange(256)
            path.write_bytes(changed)
            try:
                media.probe(path, "pyav")
            except MediaError as error:
                assert error.kind  # noqa: PT017
