"""The examples' stages as their own __main__ imports them: from folders that are no packages."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def importing(
    monkeypatch: pytest.MonkeyPatch, *folders: Path
) -> Iterator[Callable[[str], ModuleType]]:
    """Import files of folders by their names, those of the first folder first."""
    names = [path.stem for folder in folders for path in folder.glob("[!_]*.py")]
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    for folder in reversed(folders):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)
