"""How Sphinx makes a site of these pages: `make docs`."""

from sphinx.application import Sphinx

project = "malmm"
author = copyright = "The malmm developers"
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
suppress_warnings = ["misc.highlighting_failure"]  # JSON of which a part is left out, as …
html_title = "malmm"


def setup(app: Sphinx) -> None:
    app.connect("source-read", link_to_start)


def link_to_start(app: Sphinx, page: str, text: list[str]) -> None:
    """On the site the README is the page `start`; its links work in the repository too."""
    text[0] = text[0].replace("](../README.md", "](start.md")
