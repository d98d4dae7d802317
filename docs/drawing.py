"""Draws docs/architecture-light.svg and docs/architecture-dark.svg: `python docs/drawing.py`.

Above, the way from a file to text; below, one merge in a memory bank. A test holds the committed
files to what this writes.
"""

from pathlib import Path

COLOURS = {
    "light": {
        "text": "#1f2328",
        "soft": "#59636e",
        "line": "#8c959f",
        "box": "#f6f8fa",
        "memory": "#ddf4ff",
        "edge": "#0969da",
        "merge": "#fff1c2",
        "merged": "#9a6700",
    },
    "dark": {
        "text": "#e6edf3",
        "soft": "#9198a1",
        "line": "#6e7681",
        "box": "#161b22",
        "memory": "#0c2d55",
        "edge": "#58a6ff",
        "merge": "#3d2e00",
        "merged": "#e3b341",
    },
}
WIDTH, HEIGHT = 880, 412

# name, what it is given or gives, and the folders that do it
STEPS = [
    ("video file", "a path", ""),
    ("decoder", "chosen frames", "media"),
    ("image encoder", "a feature a frame", "models, frozen"),
    ("Q-Former", "one frame at a time", "models, memory"),
    ("language model", "32 tokens, a prompt", "models, frozen"),
    ("text", "caption, answers", "formats"),
]


def text(x: float, y: float, words: str, kind: str = "text", size: int = 13, more: str = "") -> str:
    """Words centred at x."""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" class="{kind}" text-anchor="middle"{more}>'
        f"{words}</text>"
    )


def box(x: float, y: float, width: float, height: float, kind: str = "box") -> str:
    """A rounded box with its upper left corner at (x, y)."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" class="{kind}"/>'
    )


def arrow(*points: tuple[float, float]) -> str:
    """A line through points, with a tip at the last."""
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path d="M{path}" class="arrow" marker-end="url(#tip)"/>'


def flow(top: float) -> list[str]:
    """The steps from left to right, and the memory bank below the Q-Former."""
    width, gap, height = 122, 20, 54
    parts = []
    for number, (name, given, folder) in enumerate(STEPS):
        x = 24 + number * (width + gap)
        middle = x + width / 2
        kind = "memory" if name == "Q-Former" else "box"
        parts += [
            box(x, top, width, height, kind),
            text(middle, top + 23, name, "text", 12, ' font-weight="600"'),
            text(middle, top + 41, given, "soft", 11),
        ]
        if folder:
            parts.append(text(middle, top - 9, folder, "soft", 11))
        if number:
            parts.append(arrow((x - gap + 2, top + height / 2), (x - 3, top + height / 2)))
        if kind == "memory":
            parts += [
                box(x, top + 96, width, 40, "memory"),
                text(middle, top + 121, "memory banks"),
                arrow((middle - 22, top + 57), (middle - 22, top + 92)),
                arrow((middle + 22, top + 94), (middle + 22, top + 58)),
                text(middle - 30, top + 79, "append", "soft", 11).replace("middle", "end"),
                text(middle + 30, top + 79, "attend", "soft", 11).replace("middle", "start"),
            ]
    return parts


def slots(y: float, counts: list[int], wide: set[int], left: float) -> list[str]:
    """A row of slots; a slot is as wide as the frames it stands for. `wide` are drawn as merged."""
    unit, gap, parts, x = 58, 8, [], left
    for number, count in enumerate(counts):
        width = unit * count + gap * (count - 1)
        kind = "merge" if number in wide else "slot"
        parts += [box(x, y, width, 36, kind), text(x + width / 2, y + 23, f"{count}")]
        x += width + gap
    return parts


def merge(top: float) -> list[str]:
    """A full bank of six slots, the seventh frame, and the two most similar neighbours merged."""
    left, unit = 268, 66
    before, after = [2, 1, 1, 1, 1, 1, 1], [2, 1, 2, 1, 1, 1]
    newest = left + 7 * unit + 29  # the middle of the last slot
    similar = left + 4 * unit - 4  # between the third and the fourth slot
    start = ' text-anchor="start"'

    def label(y: float, words: str, kind: str = "text", size: int = 13) -> str:
        return text(24, y, words, kind, size).replace(' text-anchor="middle"', start)

    return [
        label(top + 23, "a full bank and the next frame"),
        label(top + 40, "M = 6 slots, a count in each", "soft", 11),
        *slots(top, before, {2, 3}, left),
        text(newest, top - 10, "new frame", "soft", 11),
        text(similar, top - 10, "most similar neighbours in time", "merged", 11),
        arrow((similar, top + 40), (similar, top + 66)),
        text(
            similar + 12, top + 57, "mean weighted by counts; counts are added", "soft", 11
        ).replace(' text-anchor="middle"', start),
        label(top + 93, "one slot for both: M slots again"),
        label(top + 110, "the counts still sum to the frames seen", "soft", 11),
        *slots(top + 70, after, {2}, left),
        arrow((left, top + 124), (left + 8 * unit - 8, top + 124)),
        text(left + 8 * unit + 16, top + 128, "time", "soft", 11),
    ]


def draw(colours: dict[str, str]) -> str:
    """The whole drawing as SVG."""
    fill = {"text": "text", "soft": "soft", "merged": "merged"}
    framed = {
        "box": ("box", "line"),
        "memory": ("memory", "edge"),
        "slot": ("memory", "edge"),
        "merge": ("merge", "merged"),
    }
    style = [f".{name}{{fill:{colours[colour]}}}" for name, colour in fill.items()]
    style += [
        f".{name}{{fill:{colours[inside]};stroke:{colours[edge]}}}"
        for name, (inside, edge) in framed.items()
    ]
    style.append(f".arrow{{fill:none;stroke:{colours['line']};stroke-width:1.5}}")
    title = "From a video file to text, and one merge in a memory bank"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" '
            'role="img">',
            f"<title>{title}</title>",
            f"<style>{''.join(style)}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colours["line"]}"/>'
            "</marker></defs>",
            *flow(40),
            f'<path d="M24 214H{WIDTH - 24}" class="arrow" stroke-dasharray="2 5"/>',
            *merge(264),
            "</svg>",
            "",
        ]
    )


def drawings() -> dict[str, str]:
    """File names in docs/ and what is in them."""
    return {f"architecture-{name}.svg": draw(colours) for name, colours in COLOURS.items()}


if __name__ == "__main__":
    for name, content in drawings().items():
        Path(__file__).with_name(name).write_text(content, "utf-8")
