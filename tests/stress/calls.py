"""How many functions of malmm one question enters, and how deep the stack gets.

    python -m stress.calls      counts
    python -m stress.calls -v   functions by file too

Run in tests/, or with it in PYTHONPATH. It runs `malmm ask` on the sample video with the bundled
model and counts named functions of malmm_cli (no lambdas, comprehensions or bodies of classes) in
all threads, the running of modules at their import left out; child processes are not seen. "Without
loading" leaves out `pipeline/loading.load` and what it calls.
"""

import argparse
import contextlib
import io
import sys
import threading
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType

import malmm_cli
from malmm_cli.cli import run

PACKAGE = Path(malmm_cli.__file__).parent
VIDEO = PACKAGE.parent / "examples" / "shapes.mp4"
COMMAND = ["ask", str(VIDEO), "what comes first?", "--model", "tiny", "--frames", "8"]

Function = tuple[str, str]  # file, qualified name
LOADING = ("pipeline/loading.py", "load")
LAYERS = "models/instructblip/qformer.py"  # `step` has the loop over layers, which calls `begin`
LOOP, LAYER = "QFormer.step", "_Layer.begin"


class Calls:
    """A profile function, which counts what is entered."""

    def __init__(self) -> None:
        self.entered: set[Function] = set()
        self.without_loading: set[Function] = set()
        self.at_layers: set[tuple[int, int]] = set()  # frames of malmm_cli, all frames
        self.deepest: dict[str, int] = defaultdict(int)  # of malmm_cli alone, and of all
        self._functions: dict[CodeType, Function | None] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        function = self.function(frame.f_code)
        if function is None:
            return
        stack = list(self.stack(frame))
        if any(one is not None and one[1] == "<module>" for one in stack):
            return  # while a module is imported
        self.entered.add(function)
        if LOADING not in stack:
            self.without_loading.add(function)
        own = sum(one is not None for one in stack)
        self.deepest["malmm_cli"] = max(self.deepest["malmm_cli"], own)
        self.deepest["all"] = max(self.deepest["all"], len(stack))
        if function == (LAYERS, LAYER) and stack[1] == (LAYERS, LOOP):
            self.at_layers.add((own - 1, len(stack) - 1))  # of `step`, where the loop stands

    def stack(self, frame: FrameType | None):
        while frame is not None:
            if frame.f_code.co_filename != __file__:
                yield self.function(frame.f_code, named=False)
            frame = frame.f_back

    def function(self, code: CodeType, *, named: bool = True) -> Function | None:
        """File and name of code of malmm_cli; None for other code, and, if `named`, for lambdas."""
        if code not in self._functions:
            path = Path(code.co_filename)
            inside = path.is_relative_to(PACKAGE)
            self._functions[code] = (
                (path.relative_to(PACKAGE).as_posix(), code.co_qualname) if inside else None
            )
        found = self._functions[code]
        is_function = code.co_flags & 0x2 and not code.co_name.startswith("<")  # CO_NEWLOCALS
        return found if not named or is_function else None


def count() -> Calls:
    """Run the command under the profile function; its output is dropped."""
    calls = Calls()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        threading.setprofile(calls)
        sys.setprofile(calls)
        try:
            code = run(COMMAND)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
    if code:
        raise SystemExit(f"malmm {' '.join(COMMAND)} ended with {code}")
    return calls


def report(calls: Calls, *, verbose: bool) -> str:
    """The numbers as lines of text; `verbose` adds the functions by file."""
    lines = []
    both = {"in all": calls.entered, "without loading": calls.without_loading}
    for name, entered in both.items():
        lines.append(f"{name}: {len(entered)} functions of {len({f for f, _ in entered})} files")
    own, whole = max(calls.at_layers)
    lines.append(f"loop over layers: {own} frames of malmm_cli, {whole} with those of others")
    deepest = calls.deepest
    lines.append(f"deepest stack: {deepest['malmm_cli']} frames of malmm_cli")
    lines.append(f"deepest stack with a function of malmm_cli on top: {deepest['all']} frames")
    if verbose:
        by_file = defaultdict(list)
        for file, function in sorted(calls.entered):
            loading = "" if (file, function) in calls.without_loading else "  (loading)"
            by_file[file].append(f"    {function}{loading}")
        for file, functions in by_file.items():
            lines += [f"{file}: {len(functions)}", *functions]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-v", "--verbose", action="store_true", help="list the functions by file")
    print(report(count(), verbose=parser.parse_args().verbose))
