"""Which decoders this machine has, and what they read."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version

from malmm_cli.errors import UsageError

__all__ = ["decoders"]

_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg2video", "mpeg4", "prores", "dvvideo", "wmv3")


def decoders() -> dict[str, str]:
    """Each decoder's version and what it reads; nothing for one that is not here."""
    return {"pyav": _pyav(), "nvdec": _nvdec(), "ffmpeg": _program(), "decord": _decord()}


def _pyav() -> str:
    import av

    known = [name for name in _CODECS if name in av.codecs_available]
    return f"{av.__version__}, reads {', '.join(known)} and more"


def _nvdec() -> str:
    from malmm_cli.media.nvdec import CODECS, available

    return f"available, reads {', '.join(sorted(CODECS))}" if available() else ""


def _program() -> str:
    from malmm_cli.media.ffmpeg import program

    try:
        path = program()
        done = subprocess.run(
            [path, "-version"], capture_output=True, text=True, check=True, timeout=20
        )
    except (UsageError, OSError, subprocess.SubprocessError):
        return ""
    words = done.stdout.split()
    return f"{words[2] if len(words) > 2 else 'unknown version'}, {path}"


def _decord() -> str:
    try:
        return f"{version('decord')}, reads h264, hevc, vp8, vp9 and mpeg4 in mp4 and mkv"
    except PackageNotFoundError:
        return ""
