"""Small video files whose pictures carry their own number, written with PyAV."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 96, 64
BITS = 8


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Top left red, top right green, below the bits of `number` as boxes, the lowest first."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2, 0] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    for bit in range(BITS):
        if number >> bit & 1:
            pixels[height // 2 :, bit * width // BITS : (bit + 1) * width // BITS] = 255
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """Read the number of a picture of any size."""
    height, width = pixels.shape[:2]
    row = pixels[height * 3 // 4].astype(int).sum(1)
    return sum((int(row[int((bit + 0.5) * width / BITS)]) > 380) << bit for bit in range(BITS))


def write_video(
    path: Path,
    count: int = 50,
    *,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: str = "yuv420p",
    aspect: Fraction | None = None,
    gop: int = 10,
    first: int = 0,
    options: dict[str, str] | None = None,
    container: str | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write pictures `first`, `first` + 1, ...; `stamps` are their times in milliseconds."""
    if codec == "libx264":
        options = {"preset": "ultrafast", "bf": "0", **(options or {})}
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(picture(first + number, *size), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.pts = stamps[number] if stamps is not None else number
            frame.time_base = Fraction(1, 1000) if stamps is not None else 1 / Fraction(rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_sound(path: Path, codec: str = "pcm_s16le", muxer: dict[str, str] | None = None) -> Path:
    """Write a second of silence."""
    with av.open(str(path), "w", options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=16000, layout="mono")
        shape = (1, stream.codec_context.frame_size or 1600)
        samples = np.zeros(shape, np.int16 if codec in {"pcm_s16le", "mp2"} else np.float32)
        kind = "s16" if samples.dtype == np.int16 else "fltp"
        for number in range(10):
            frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
            frame.sample_rate, frame.pts = 16000, number * shape[1]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_cover(path: Path, image: Path) -> Path:
    """Write an MP3 file of silence with `image` as its cover."""
    write_sound(path, "libmp3lame")
    sound = path.read_bytes()
    body = b"\x00image/jpeg\x00\x03\x00" + image.read_bytes()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\x00\x00" + body
    length = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\x00\x00" + length + frame + sound)
    return path


def set_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Overwrite the display matrix of an MP4 file: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    values = [round(value * 65536) for value in (a, b, 0, c, d, 0, 0, 0)]
    data[start : start + 36] = struct.pack(">9i", *values, 1 << 30)
    path.write_bytes(data)
    return path


def set_edits(path: Path, *edits: tuple[float, float | None, int]) -> Path:
    """Give an MP4 file another edit list: seconds, where in the medium (or nowhere), rate."""
    data = bytearray(path.read_bytes())
    at = data.index(b"edts") - 4
    movie = int.from_bytes(data[data.index(b"mvhd") + 16 :][:4])
    medium = int.from_bytes(data[data.index(b"mdhd") + 16 :][:4])
    body = b"".join(
        struct.pack(
            ">IiHH", round(length * movie), -1 if begin is None else round(begin * medium), rate, 0
        )
        for length, begin, rate in edits
    )
    box = struct.pack(">I4sII", 16 + len(body), b"elst", 0, len(edits)) + body
    box = struct.pack(">I4s", 8 + len(box), b"edts") + box
    more = len(box) - int.from_bytes(data[at : at + 4])
    data[at : len(box) - more + at] = box
    for kind in (b"moov", b"trak"):
        start = data.index(kind) - 4
        data[start : start + 4] = (int.from_bytes(data[start : start + 4]) + more).to_bytes(4)
    path.write_bytes(data)
    return path


class _Bits:
    """A string of bits, as H.264 writes numbers."""

    def __init__(self, *fixed: tuple[int, int]) -> None:
        self.text = ""
        self.fixed(*fixed)

    def fixed(self, *fields: tuple[int, int]) -> None:
        self.text += "".join(format(value, f"0{width}b") for width, value in fields)

    def golomb(self, *values: int) -> None:
        for value in values:
            code = format(value + 1, "b")
            self.text += "0" * (len(code) - 1) + code

    def align(self, first: str = "") -> None:
        self.text += first
        self.text += "0" * (-len(self.text) % 8)

    def unit(self, importance: int, kind: int) -> bytes:
        """Finish a network unit: a stop bit, and a 3 after every two zeros."""
        self.align("1")
        body = bytearray()
        for byte in int(self.text, 2).to_bytes(len(self.text) // 8, "big"):
            if byte <= 3 and body[-2:] == b"\0\0":
                body.append(3)
            body.append(byte)
        return b"\0\0\0\1" + bytes([importance << 5 | kind]) + bytes(body)


def write_fields(path: Path, count: int) -> Path:
    """Write interlaced H.264 as broadcasts do: each picture two packets, its odd and even lines.

    No encoder at hand does so; this one stores samples as they are (I_PCM).
    """
    sequence = _Bits((8, 77), (8, 0), (8, 30))
    sequence.golomb(0, 0, 0, 4, 1)  # 8 bits of picture order, one reference
    sequence.fixed((1, 0))
    sequence.golomb(WIDTH // 16 - 1, HEIGHT // 32 - 1)
    sequence.fixed((1, 0), (1, 0), (1, 1), (1, 0), (1, 0))  # interlaced
    parameters = _Bits()
    parameters.golomb(0, 0)
    parameters.fixed((2, 0))
    parameters.golomb(0, 0, 0)
    parameters.fixed((3, 0))
    parameters.golomb(0, 0, 0)
    parameters.fixed((3, 0b100))
    head = sequence.unit(3, 7) + parameters.unit(3, 8)
    stream = b"".join(
        b"\0\0\0\1\x09\xf0" + head + _field(number, 0) + _field(number, 1)
        for number in range(count)
    )
    raw = path.with_suffix(".h264")
    raw.write_bytes(stream)
    with av.open(str(raw)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number
            packet.time_base, packet.duration = Fraction(1, 50), 1
            packet.stream = copy
            output.mux(packet)
    return path


def _field(number: int, parity: int) -> bytes:
    frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24").reformat(format="yuv420p")
    planes = frame.to_ndarray()
    luma = planes[:HEIGHT][parity::2]
    chroma = planes[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)[:, parity::2]
    key = parity == 0 and number % 10 == 0
    bits = _Bits()
    bits.golomb(0, 7 if key else 5, 0)  # a slice of kind I or P
    bits.fixed((4, number % 10), (1, 1), (1, parity))
    if key:
        bits.golomb(number // 10 % 2)
    bits.fixed((8, 2 * (number % 10) + parity), (2 if key else 3, 0))
    bits.golomb(0, 1)
    for row in range(0, HEIGHT // 2, 16):
        for column in range(0, WIDTH, 16):
            bits.golomb(*([25] if key else [0, 30]))  # I_PCM
            bits.align()
            block = [luma[row : row + 16, column : column + 16]]
            block += list(chroma[:, row // 2 : row // 2 + 8, column // 2 : column // 2 + 8])
            bits.fixed(*((8, int(value)) for part in block for value in part.ravel()))
    return bits.unit(3, 5 if key else 1)
