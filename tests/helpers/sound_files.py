"""Files with sound whose every sample is known: silence, and a short tone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from helpers.media_files import HEIGHT, WIDTH, picture

LOUD = 0.8


def tone(channels: int, rate: int, seconds: float, at: float, hertz: float) -> np.ndarray:
    """(channels, n) float32: 20 ms of a tone in the first channel, else silence."""
    wave = np.zeros((channels, round(rate * seconds)), np.float32)
    length = rate // 50
    begin = round(at * rate)
    wave[0, begin : begin + length] = LOUD * np.sin(2 * np.pi * hertz / rate * np.arange(length))
    return wave


def onset(samples: np.ndarray, rate: int = 16000) -> float:
    """When the first channel begins to sound, in seconds."""
    loud = np.abs(samples[0])
    return int(np.flatnonzero(loud > 0.1 * loud.max())[0]) / rate


def write_tones(
    path: Path,
    codec: str = "pcm_s16le",
    *,
    rate: int = 16000,
    layout: str = "mono",
    seconds: float = 3.0,
    at: float = 1.0,
    late: float = 0.0,
    gap: float = 0.0,
    tracks: int = 1,
    pictures: float = 0.0,
    form: str | None = None,
) -> Path:
    """Write sound with a tone `at` seconds, of 1 kHz on track 1, 2 kHz on track 2.

    It starts `late`, and there is a `gap` before its last third. `pictures` are as many seconds.
    """
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10) if pictures else None
        streams = [output.add_stream(codec, rate=rate, layout=layout) for _ in range(tracks)]
        for stream in streams:
            if form:
                stream.format = form
        if video is not None:
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(round(pictures * 10)):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts = number
                output.mux(video.encode(frame))
            output.mux(video.encode(None))
        for number, stream in enumerate(streams, 1):
            channels = stream.layout.nb_channels
            wave = tone(channels, rate, seconds, at, 1000.0 * number)
            frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            size = stream.codec_context.frame_size or 1024
            form_of = stream.format.name
            parts = av.AudioResampler(form_of, layout, rate, frame_size=size)
            for part in [*parts.resample(frame), *parts.resample(None)]:
                behind = gap if part.pts > 2 / 3 * seconds * rate else 0.0
                part.pts += round((late + behind) * rate)
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
    return path
