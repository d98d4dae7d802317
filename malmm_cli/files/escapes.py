"""Control characters and bidirectional marks, shown as text instead of obeyed.

Names, questions and what models write come from strangers: an escape in them sets a title, hides a
line or types for the reader.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["for_terminal", "on_one_line", "to_json"]

# All controls but tab and line feed; marks that change the direction of text or separate lines;
# halves of surrogates, which represent bytes of file names that are not valid text.
OBEYED = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def for_terminal(text: str) -> str:
    """The text, with what a terminal would obey escaped as in Python."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_one_line(text: str) -> str:
    """The same without line breaks."""
    return for_terminal(" ".join(text.split()))


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON whose text is readable, but holds nothing that a terminal would obey."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
