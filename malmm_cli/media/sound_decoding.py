"""One sound stream as PyAV decodes it: frames and their times, resampled run by run."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from numpy.typing import NDArray

from malmm_cli.media.timeline import Splices

__all__ = ["Decoder", "seconds_of"]

SLACK = 0.05  # seconds that times may differ from the samples counted; containers round
STEP_BACK = 1.0  # seconds; a longer step back is times that start over


def seconds_of(frame: AudioFrame) -> float | None:
    """Return the time of a frame's first sample in the file, if it is known."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


class Decoder:
    """Decodes the sound stream of an open container; counts `packets` and those that `failed`."""

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        splices: Splices | None = None,
        unit: float = 1.0,
    ) -> None:
        self.packets = self.failed = 0
        self._container, self._stream = container, stream
        self._splices, self._unit = splices, unit
        self._joints = [] if splices is None else splices.positions.tolist()

    def seek(self, seconds: float) -> None:
        """Go to that time in the file or before; to the beginning where that does not work."""
        assert self._stream.time_base is not None
        try:
            target = int(seconds / self._stream.time_base)
            self._container.seek(max(target, 0), stream=self._stream)
        except av.FFmpegError:
            self._container.seek(0)

    def frames(self) -> Iterator[tuple[AudioFrame, float]]:
        """Yield frames, passing over what cannot be decoded, and what splices add to their time."""
        shift = 0.0
        for packet in self._demuxed():
            self.packets += 1
            shift = self._shift(packet, shift)
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.FFmpegError:
                self.failed += 1
                continue
            for frame in frames:
                yield frame, shift
        try:
            for frame in self._stream.codec_context.decode(None):
                yield frame, shift
        except av.FFmpegError:
            return

    def resampled(
        self, rate: int, layout: str, longest: float
    ) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """Yield (time in the file, samples (C, n)) at another rate, C those of `layout`.

        Frames that follow each other are resampled as one run. A step in their times begins
        another, unless it is forward by more than `longest` seconds or far back: such times go on
        from the last.
        """
        resampler: AudioResampler | None = None
        form: tuple[str, str, int] | None = None
        expected: float | None = None  # the time at which the next frame should begin
        start, count, by = 0.0, 0, 0.0

        def out(frame: AudioFrame | None) -> Iterator[tuple[float, NDArray[np.float32]]]:
            nonlocal count
            if resampler is None:
                return
            for piece in resampler.resample(frame):
                samples = np.asarray(piece.to_ndarray(), np.float32)
                yield start + count / rate, samples
                count += samples.shape[1]

        for frame, shift in self.frames():
            known = seconds_of(frame)
            here = known + shift + by if known is not None else expected
            here = 0.0 if here is None else here
            if expected is not None and not -STEP_BACK <= here - expected <= longest:
                by += expected - here
                here = expected
            now = (frame.format.name, frame.layout.name, frame.sample_rate)
            if expected is None or now != form or abs(here - expected) > SLACK:
                yield from out(None)
                resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
                form, start, count, expected = now, here, 0, here
            frame.pts = None  # the resampler must not fill gaps itself
            yield from out(frame)
            expected += frame.samples / frame.sample_rate
        yield from out(None)

    def _demuxed(self) -> Iterator[Packet[AudioStream]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                return
            except IndexError:  # a packet of a stream that begins in mid-file: PyAV does not know
                packets = self._container.demux(self._stream)
                continue
            if packet is None:
                return
            if packet.size:
                yield packet

    def _shift(self, packet: Packet[AudioStream], before: float) -> float:
        """Seconds to add to a packet's time, as for the pictures beside it."""
        if self._splices is None or packet.pos is None:
            return before
        at = bisect_right(self._joints, packet.pos) - 1
        return float(self._splices.shifts[max(at, 0)]) * self._unit
