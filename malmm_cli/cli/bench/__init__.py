"""The commands `malmm bench ...`."""

from __future__ import annotations

import typer

from malmm_cli.cli.bench import growth, parts, videos

__all__ = ["app"]

app = typer.Typer(help="Benchmark this machine.", rich_markup_mode=None)


@app.callback()
def bench() -> None:
    """Benchmark this machine."""


for command in (parts.step, parts.model, parts.drift, parts.decode, videos.video, growth.growth):
    app.command()(command)
app.command("all")(videos.everything)
