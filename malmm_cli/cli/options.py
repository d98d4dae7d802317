"""The options shared by every command that runs a model, declared once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from malmm_cli.cli.completion import models, one_of
from malmm_cli.errors import UsageError
from malmm_cli.models import registry
from malmm_cli.models.placement import check_placement
from malmm_cli.settings import Changes, Settings
from malmm_cli.text.clock import parse_seconds

if TYPE_CHECKING:
    from malmm_cli.pipeline.feature_cache import FeatureCache

__all__ = ["RunOptions", "with_options"]

_KNOWN = registry.defaults()


def _option(*flags: str, **details: Any) -> Any:
    values = [value.partition("[")[0] for value in details.get("metavar", "").split("|")]
    if len(values) > 1:
        details.setdefault("autocompletion", one_of(values))
    return typer.Option(*flags, **details)


def _kept(*flags: str, name: str, **details: Any) -> Any:
    """An option that the environment and the config file can set."""
    return _option(*flags, envvar=f"MALMM_{name.upper()}", show_envvar=False, **details)


@dataclass(frozen=True)
class RunOptions:
    """Values of the shared options; None where the model's defaults hold."""

    model: Annotated[
        str,
        _option(
            "--model",
            "-m",
            metavar="MODEL",
            envvar="MALMM_MODEL",
            help="Model name, Hub repository or folder.",
            autocompletion=models,
        ),
    ] = "vicuna-7b"
    frames: Annotated[int | None, _option(metavar="N", help="Number of frames, spread evenly.")] = (
        None
    )
    fps: Annotated[
        float | None, _option(metavar="N", help="Frames per second, instead of --frames.")
    ] = None
    max_frames: Annotated[
        int | None, _option(metavar="N", help="Maximum number of frames with --fps.")
    ] = None
    start: Annotated[
        str | None,
        _option("--from", metavar="T", help="Start at T: seconds, 90s, 1h2m or [HH:]MM:SS."),
    ] = None
    end: Annotated[str | None, _option("--to", metavar="T", help="End at T.")] = None
    decoder: Annotated[
        str | None, _option(metavar="auto|pyav|nvdec|ffmpeg|decord", help="Video decoder to use.")
    ] = None
    memory: Annotated[
        int | None, _option(metavar="N", help="Memory bank length (0: no memory).")
    ] = None
    policy: Annotated[
        str | None,
        _option(metavar="|".join(_KNOWN.policies), help="What to do when the bank is full."),
    ] = None
    merge: Annotated[
        str | None,
        _option(metavar="|".join(_KNOWN.merges), help="Merge each patch, or whole frames."),
    ] = None
    mean: Annotated[
        str | None,
        _option(metavar="|".join(_KNOWN.means), help="Mean of two slots that are merged."),
    ] = None
    fill: Annotated[
        str | None,
        _option(metavar="|".join(_KNOWN.fills), help="Merge two slots, or keep one of them."),
    ] = None
    look_again: Annotated[
        int | None,
        _option(metavar="K", help="Show K moments again that the question looks at."),
    ] = None
    banks: Annotated[
        str | None,
        _option(metavar="|".join(_KNOWN.banks), help="Memory banks to use."),
    ] = None
    device: Annotated[
        str, _kept(name="device", metavar="auto|cpu|cuda[:i]|mps", help="Device to run on.")
    ] = "auto"
    dtype: Annotated[
        str, _kept(name="dtype", metavar="auto|float32|bfloat16|float16", help="Compute dtype.")
    ] = "auto"
    quantize: Annotated[
        str | None, _kept(name="quantize", metavar="8bit|4bit", help="Quantize the language model.")
    ] = None
    prompt: Annotated[str | None, _option(metavar="TEXT", help="Prompt for the model.")] = None
    max_new_tokens: Annotated[
        int | None, _option(metavar="N", help="Maximum length of the text in tokens.")
    ] = None
    beams: Annotated[int | None, _option(metavar="N", help="Beam search width.")] = None
    sample: Annotated[
        bool, _option("--sample", help="Sample instead of taking the most likely token.")
    ] = False
    temperature: Annotated[float | None, _option(metavar="X", help="Sampling temperature.")] = None
    top_p: Annotated[float | None, _option(metavar="P", help="Nucleus sampling threshold.")] = None
    length_penalty: Annotated[
        float | None, _option(metavar="X", help="Above 0 favours long texts, below 0 short ones.")
    ] = None
    repetition_penalty: Annotated[
        float | None, _option(metavar="X", help="Above 1 avoids repetition.")
    ] = None
    seed: Annotated[
        int | None, _option(metavar="N", help="Random seed for sampling and for the random policy.")
    ] = None
    format: Annotated[
        str | None, _option(metavar="text|json|jsonl|srt|vtt|tsv", help="Output format.")
    ] = None
    json: Annotated[bool, _option("--json", help="Print JSON.")] = False
    output: Annotated[
        Path | None,
        _option("-o", "--output", metavar="FILE", help="Write to FILE instead of stdout."),
    ] = None
    overwrite: Annotated[bool, _option("--overwrite", help="Overwrite existing files.")] = False
    cache: Annotated[
        Path | None,
        _option(metavar="FOLDER", envvar="MALMM_CACHE", help="Cache frame features in FOLDER."),
    ] = None
    cache_size: Annotated[
        float,
        _option(metavar="GB", min=0, envvar="MALMM_CACHE_SIZE", help="Maximum cache size in GB."),
    ] = 20.0
    full_hash: Annotated[
        bool, _option("--full-hash", help="Identify files by all of their bytes.")
    ] = False
    offline: Annotated[
        bool, _kept("--offline", name="offline", help="Do not access the network.")
    ] = False
    quiet: Annotated[bool, _option("-q", "--quiet", help="Hide progress and notes.")] = False
    verbose: Annotated[bool, _option("-v", "--verbose", help="Show how long each stage took.")] = (
        False
    )
    no_progress: Annotated[
        bool, _kept("--no-progress", name="no_progress", help="Hide the progress bar.")
    ] = False

    def __post_init__(self) -> None:
        """Raise UsageError for options that contradict each other."""
        if self.quiet and self.verbose:
            raise UsageError("-q and -v exclude each other", hint="use only one of them")

    def changes(self) -> Changes:
        """The settings that were asked for; UsageError where they exclude each other."""
        check_placement(self.device, self.dtype, self.quantize)
        if self.frames is not None and self.fps is not None:
            raise UsageError("--frames and --fps exclude each other", hint="use only one of them")
        if self.max_frames is not None and self.fps is None:
            raise UsageError("--max-frames needs --fps", hint="use --frames instead")
        changes: dict[str, Any] = {name: getattr(self, name) for name in _CHANGES}
        changes |= {
            "start": seconds("--from", self.start),
            "end": seconds("--to", self.end),
            "sample": self.sample or None,
        }
        return cast("Changes", {k: v for k, v in changes.items() if v is not None})

    def settings(self, task: str) -> Settings:
        """The model's settings for "caption" or "ask", with what was asked for.

        They follow from the model's name; see `defaults_of` for what is not known before the model
        is loaded. Raises UsageError where they make no sense.
        """
        from malmm_cli.pipeline.defaults import defaults_of

        return defaults_of(self.model).settings(task, **self.changes())

    def check_model(self, settings: Settings) -> None:
        """What can be told of the model before torch is imported: see `precheck.check_model`."""
        from malmm_cli.pipeline.precheck import check_model

        check_model(self.model, settings)

    def placement(self) -> dict[str, Any]:
        """How a model is to be loaded, as arguments of `check_absent` and `loading.load`."""
        names = ("device", "dtype", "quantize", "offline")
        return {name: getattr(self, name) for name in names}

    def feature_cache(self) -> FeatureCache | None:
        """Where features are kept, if they are."""
        if self.cache is None:
            return None
        from malmm_cli.pipeline.feature_cache import FeatureCache

        limit = int(min(self.cache_size, 1e9) * 1e9)
        return FeatureCache(self.cache.expanduser(), limit, self.full_hash)


_CHANGES = (
    *("frames", "fps", "max_frames", "decoder", "memory", "policy", "merge", "mean"),
    *("fill", "look_again", "banks", "prompt"),
    *("max_new_tokens", "beams", "temperature", "top_p", "length_penalty", "repetition_penalty"),
    "seed",
)


def seconds(option: str, text: str | None) -> float | None:
    """Seconds of an option's text, see `parse_seconds`; None where it was not given."""
    return None if text is None else parse_seconds(option, text)


def with_options(
    task: str | None = None,
    *,
    only: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    kind: type[RunOptions] = RunOptions,
) -> Callable[[Any], Any]:
    """Give a command the shared options, or some of them; it gets them as one, `options`.

    With a `task`, the command's help shows the defaults for it of the first family of models.
    `kind` may have more options than the shared ones.
    """
    defaults = {} if task is None else _defaults(registry.defaults().tasks[task])

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = _hints(kind)  # type: ignore[arg-type]  # mypy looks for the hash of an instance
        wanted = only or [field.name for field in fields(kind)]
        taken = [f for f in fields(kind) if f.name in wanted and f.name not in without]
        shared = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=_with_default(hints[field.name], defaults.get(field.name)),
            )
            for field in taken
        ]
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "options"]

        @wraps(command)
        def wrapper(**values: Any) -> None:
            options = kind(**{field.name: values.pop(field.name) for field in taken})
            command(**values, options=options)

        parameters = [*own, *shared]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


@cache
def _hints(kind: type[RunOptions]) -> dict[str, Any]:
    """Types and options by field, evaluated once for all commands."""
    return get_type_hints(kind, include_extras=True)


def _defaults(settings: Settings) -> dict[str, Any]:
    """The settings by their options, where these are None unless given."""
    values = {**asdict(settings.memory), **settings.as_dict(), **asdict(settings.decoding)}
    values["look_again"] = settings.look_again
    return {name: values[name] for name in _CHANGES}


def _with_default(hint: Any, default: Any) -> Any:
    """The option with the command's default, if it has one, in its help."""
    if default is None:
        return hint
    kind, option = hint.__origin__, copy.copy(hint.__metadata__[0])
    option.help = f"{option.help}  [default: {default}]"
    return Annotated[kind, option]
