"""Patterns of --include and --exclude: gitignore's, for paths below an input folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from malmm_cli.errors import UsageError

__all__ = ["Patterns"]


class Patterns:
    """Chooses among the files of folders; without patterns, all of them.

    Raises UsageError for a pattern that gitignore would not take either.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        self._include = _Spec("--include", include)
        self._exclude = _Spec("--exclude", exclude)

    def enters(self, folder: Path) -> bool:
        """Whether a folder, relative to the input, is walked."""
        return not self._exclude.matches(f"{folder.as_posix()}/")

    def takes(self, file: Path) -> bool:
        """Whether a file, relative to the input, is chosen."""
        path = file.as_posix()
        excluded = self._exclude.matches(path)
        return (not self._include or self._include.matches(path)) and not excluded

    def unused(self) -> Iterator[str]:
        """Yield each pattern that has matched nothing so far, with its option."""
        yield from self._include.unused()
        yield from self._exclude.unused()


class _Spec:
    """The patterns of one option, of which the last that matches decides, and which have matched.

    They match what git matches, but each pattern is tried, so that those in vain can be named.
    """

    def __init__(self, option: str, patterns: Sequence[str]) -> None:
        self._option, self._unused = option, dict.fromkeys(patterns)
        if not patterns:  # pathspec need not be imported
            self._spec = None
            return
        from pathspec import GitIgnoreSpec

        self._each = []
        for pattern in patterns:
            try:
                spec = GitIgnoreSpec.from_lines([pattern])
            except ValueError as error:
                raise _wrong(option, pattern) from error
            if all(one.include is None for one in spec.patterns):  # empty, or a comment
                raise _wrong(option, pattern)
            self._each.append((pattern, spec.patterns[0]))
        self._spec = GitIgnoreSpec.from_lines(patterns)

    def __bool__(self) -> bool:
        return self._spec is not None

    def matches(self, path: str) -> bool:
        """Whether these patterns choose the path; folders end in a slash."""
        if self._spec is None:
            return False
        for pattern, compiled in self._each:
            if pattern in self._unused and compiled.match_file(path) is not None:
                del self._unused[pattern]
        return self._spec.match_file(path)

    def unused(self) -> Iterator[str]:
        """Yield each pattern that has matched nothing, with the option."""
        yield from (f"{self._option} {pattern}" for pattern in self._unused)


def _wrong(option: str, pattern: str) -> UsageError:
    return UsageError(
        f"{option} {pattern!r}: not a pattern", hint="patterns are those of .gitignore, as *.mkv"
    )
