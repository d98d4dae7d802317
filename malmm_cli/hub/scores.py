"""Published scores of models on long videos, each with its source.

None was measured with a memory in front: they say how good a model is, not what malmm makes of it.
Different sources ran different numbers of frames, so that rows compare within a source at best.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SCORES", "Scores"]


@dataclass(frozen=True)
class Scores:
    """Percent: MLVU (M-Avg), Video-MME without subtitles, LVBench; None where none was found."""

    mlvu: float | None
    video_mme: float | None
    lvbench: float | None
    source: str


_QWEN3_VL = "technical report, table 4"
_MINICPM = "OpenBMB, for MiniCPM-V 4.6"
_CLUE = "Clue-OPSD paper, table 3, no thinking"
_SMOLVLM2 = "model card"
_INTERNVL3 = "paper, table 8, 16 to 64 frames"

# Short name → scores; models that are left out have none that a source could be found for.
SCORES = {
    "qwen3-vl-2b": Scores(68.3, 61.9, 47.4, _QWEN3_VL),
    "qwen3-vl-4b": Scores(75.3, 69.3, 56.2, _QWEN3_VL),
    "qwen3-vl-8b": Scores(78.1, 71.4, 58.0, _QWEN3_VL),
    "qwen3.5-0.8b": Scores(54.9, 48.9, 35.8, _MINICPM),
    "qwen3.5-2b": Scores(59.3, None, 48.4, _CLUE),
    "qwen3.5-4b": Scores(68.5, None, 54.5, _CLUE),
    "smolvlm2-256m": Scores(40.6, 33.7, None, _SMOLVLM2),
    "smolvlm2-500m": Scores(47.3, 42.2, None, _SMOLVLM2),
    "smolvlm2-2.2b": Scores(55.2, 52.1, None, _SMOLVLM2),
    "internvl3-1b": Scores(53.0, 51.0, None, _INTERNVL3),
    "internvl3-2b": Scores(64.2, 58.9, None, _INTERNVL3),
    "internvl3-8b": Scores(71.4, 66.3, None, _INTERNVL3),
}
