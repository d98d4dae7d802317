"""A file as PyAV sees it: opening it, choosing its picture stream, walking its packets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from typing import cast

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from malmm_cli.errors import MediaError
from malmm_cli.media.files import PLAYLISTS, TEXTS, head, kind_of, nameless, playlist, shown
from malmm_cli.media.heif import sequence_first
from malmm_cli.media.limits import MAX_PIXELS, PADDING, check_size
from malmm_cli.media.timeline import Splices

__all__ = [
    *("ONE_BY_ONE", "limit_of", "open_file", "packets_of"),
    *("picture_streams", "pictures_of", "seek", "stream_of"),
]

# PyAV's log level is left alone: unset, it is silent; at any level, the decoder's threads want the
# interpreter's lock to log, and closing a file that is still being decoded can wait for ever.

# Codecs whose pictures are decoded one by one. In parallel, a damaged file gave different pictures
# from run to run, probably because FFmpeg conceals errors in rows that the thread of the next one
# has read already. In twelve runs each, damaged H.264, MPEG-2 and VP8 did not.
ONE_BY_ONE = {"mpeg4"}
LARGE = 40_000_000  # pixels; 8K is less
CONTAINERS = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}  # at byte 4 of MP4 and MOV


def open_file(
    path: str, max_pixels: int = MAX_PIXELS, hardware: HWAccel | None = None
) -> InputContainer:
    """Open a file, or say in a MediaError what it is instead.

    Pictures larger than `max_pixels` are not decoded. With `hardware` nothing else decodes them.
    """
    options = {
        "protocol_whitelist": "file",  # keeps lists of files from reaching the network
        "max_pixels": str(max_pixels + PADDING),
        # pieces of an MPEG-TS that were joined may number the same stream in different ways
        "merge_pmt_versions": "1",
        "ignore_editlist": "1",
    }
    try:
        with nameless(path) as (address, _):
            container = av.open(
                address, options=options, metadata_errors="replace", hwaccel=hardware
            )
    except av.FFmpegError as error:
        raise _no_container(path) from error
    if container.format.name in PLAYLISTS:
        container.close()
        raise playlist(path)
    return container


def limit_of(container: InputContainer) -> int:
    """Return the maximum number of pixels of a picture, as given to `open_file`."""
    return int(container.options["max_pixels"]) - PADDING


def _no_container(path: str) -> MediaError:
    if head(path)[4:8] in CONTAINERS:
        return MediaError(
            f"{shown(path)}: broken file: the index (moov) is missing",
            hint="the recording was interrupted or is still in progress",
            kind="CutOff",
        )
    return MediaError(f"{shown(path)}: not a video (unknown format)", kind="NotAVideo")


def picture_streams(path: str, container: InputContainer) -> list[int]:
    """Return the numbers of the picture streams, the one to show first.

    FFmpeg's own choice: a default flag outweighs five million pixels, then the larger, the earlier.
    """
    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & covers]
    known = [s for s in streams if s.codec_context]  # without one a stream has not even a size
    sizes = {stream.index: (stream.width, stream.height) for stream in known}
    if not all(width and height for width, height in sizes.values()):
        sizes |= _sizes_said(path)  # FFmpeg forgets a size beyond the limit
    for stream in known:
        check_size(path, *sizes[stream.index], limit_of(container))
    if kind_of(path) == "heif":
        known = sequence_first(path, known)
    if not streams or container.format.name in TEXTS:
        raise _no_pictures(path, container)

    def weight(stream: VideoStream) -> int:
        default = bool(stream.disposition & av.stream.Disposition.default)
        return stream.width * stream.height + 5_000_000 * default

    return [s.index for s in sorted(known, key=weight, reverse=True)]


def _sizes_said(path: str) -> dict[int, tuple[int, int]]:
    """Return what the headers say of each picture stream, with no decoder at work."""
    options = {"protocol_whitelist": "file", "codec_whitelist": "none"}
    try:
        with (
            nameless(path) as (address, _),
            av.open(address, options=options, metadata_errors="replace") as container,
        ):
            streams = container.streams.video
            return {s.index: (s.width, s.height) for s in streams if s.codec_context}
    except av.FFmpegError:
        return {}


def _no_pictures(path: str, container: InputContainer) -> MediaError:
    if container.format.name in TEXTS or not (container.streams.video or container.streams.audio):
        return MediaError(f"{shown(path)}: not a video (no video or audio track)", kind="NotAVideo")
    if container.streams.video:
        return MediaError(f"{shown(path)}: has only a cover image", kind="CoverOnly")
    return MediaError(f"{shown(path)}: no video track, audio only", kind="SoundOnly")


def stream_of(container: InputContainer, number: int) -> VideoStream:
    """Return a picture stream by its number, to be decoded in several threads if it can be."""
    stream = container.streams[number]
    assert isinstance(stream, VideoStream)
    # threads that decode a picture each also hold one each
    large = stream.width * stream.height >= LARGE
    one_by_one = large or stream.codec_context.name in ONE_BY_ONE
    stream.thread_type = "SLICE" if one_by_one else "AUTO"
    stream.codec_context.options = {"max_pixels": container.options["max_pixels"]}
    return stream


def packets_of(
    container: InputContainer, stream: VideoStream, on_stranger: Callable[[], None] | None = None
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets that hold something, up to the first that cannot be read.

    `on_stranger` is called at each packet of a stream that only begins in mid-file.
    """
    packets = container.demux(stream)
    # where joined pieces number the stream differently, the last picture of one comes at the end of
    # the file, after what it would have to be decoded before
    ordered = container.format.name == "mpegts"
    position = 0
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        except IndexError:  # a packet of a stream that begins in mid-file: PyAV does not know it
            packets = container.demux(stream)
            if on_stranger is not None:
                on_stranger()
            continue
        if packet is None:
            return
        if ordered and packet.pos is not None:
            if packet.pos < position:
                continue
            position = packet.pos
        if packet.size:  # an empty one repeats a picture (AVI) or ends the stream (PyAV's own)
            yield packet


def pictures_of(
    container: InputContainer,
    stream: VideoStream,
    splices: Splices | None = None,
    *,
    from_key: bool = False,
    wanted: Callable[[Packet[VideoStream]], bool] | None = None,
) -> Generator[VideoFrame]:
    """Yield the pictures from here on, passing over what cannot be decoded.

    What the decoder need not decode, since it is not `wanted` and nothing refers to it, is left
    out; None wants everything.
    """
    decoder = _decoder(stream)
    packets = packets_of(container, stream)
    for packet in packets if splices is None else _continued(packets, splices):
        if from_key and not packet.is_keyframe:
            continue
        from_key = False
        if wanted is not None:
            decoder.skip_frame = "DEFAULT" if wanted(packet) else "NONREF"
        yield from _decode(decoder, packet)
    yield from _decode(decoder, None)


def seek(
    container: InputContainer, stream: VideoStream, target: int, splices: Splices | None
) -> bool:
    """Move to a key picture at `target`: a byte where there are splices, else a timestamp."""
    by_byte = splices is not None and splices.by_byte
    try:
        container.seek(target, stream=stream, unsupported_byte_offset=by_byte)
    except av.FFmpegError:
        return False
    return True


def _continued(
    packets: Iterator[Packet[VideoStream]], splices: Splices
) -> Iterator[Packet[VideoStream]]:
    """Yield the packets with timestamps that continue where those of the file jump."""
    positions, shifts = splices.positions.tolist(), splices.shifts.tolist()
    by = 0
    for packet in packets:
        if splices.wrap and packet.pts is not None and packet.dts is not None:
            packet.pts += splices.wrap * round((packet.dts - packet.pts) / splices.wrap)
        if packet.pos is not None:
            by = shifts[max(bisect_right(positions, packet.pos) - 1, 0)]
        if packet.pts is not None:
            packet.pts += by
        if packet.dts is not None:
            packet.dts += by
        yield packet


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """Return what decodes a stream: its own decoder, except for WebM with transparency.

    There the alpha plane comes beside each packet, where FFmpeg's own VP8 and VP9 do not look.
    """
    own = stream.codec_context
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(own.name)
    metadata = {key.lower(): value for key, value in stream.metadata.items()}
    if metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return own
    decoder = cast("VideoCodecContext", av.CodecContext.create(name, "r"))
    decoder.options = own.options
    return decoder


def _decode(decoder: VideoCodecContext, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
    try:
        return decoder.decode(packet)
    except av.FFmpegError:
        return []
