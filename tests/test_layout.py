"""The shape of the code: who imports whom, who prints, how long things are.

`complaints` reads one file's source; the tests give it every file of the package, and a wrong
line of each kind to see that it notices.
"""

import ast
import fnmatch
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from malmm_cli.models import registry

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "malmm_cli"

# a file imports only modules listed below its own
ORDER = [
    *("__main__", "cli", "check", "bench", "doctor", "batch", "train", "evaluate", "pipeline"),
    *("models", "datasets", "hub", "media", "memory", "checkpoints", "formats"),
    *("calls", "settings", "files", "processes", "events", "types", "text", "errors"),
]

# beyond that order: modules that stay apart, and what only some may import
APART = {"models": {"media", "formats", "hub", "datasets"}}
OWNERS = {
    "av": {"media", "datasets/synthetic/video.py"},
    "decord": {"media", "bench/decoding.py"},  # the latter to measure it alone
    "ray": {"batch/cluster.py"},
    "ffmpeg": {"media"},
    "imageio_ffmpeg": {"media"},
    "huggingface_hub": {"hub", "checkpoints/state.py"},  # the latter to write shards, not to fetch
    "click": {"cli", "__main__"},
    "rich": {"cli", "__main__"},
    "typer": {"cli", "__main__"},
}
# inside models: registry and capacity → one folder per family → these
BELOW_FAMILIES = {
    *(
        "base",
        "config",
        "context",
        "device",
        "generation",
        "placement",
        "reading",
        "shortage",
        "theirs",
        "tokens",
        "vocabulary",
    ),
}

FAMILIES = {
    folder.name
    for folder in (PACKAGE / "models").iterdir()
    if folder.is_dir() and not folder.name.startswith("_")
}

# What only a family's own files may name in code, and the rows of the tables that lead to families.
FAMILY_NAMES = {*FAMILIES, *registry.FAMILIES}
FAMILY_PARTS = ("instructblip", "qformer", "query_tokens")
ROWS = {
    "checkpoints/layout.py": {"FAMILIES"},
    "hub/registry.py": {"KNOWN"},
    "models/registry.py": {"FAMILIES", "REFERENCE"},
}
PROSE = {"bench/page.py"}  # the text of a report

# What ends the process: a child that must not begin, and a fork at its end.
EXITING, EXITS = {"processes/children.py", "processes/pulse.py"}, "exits; only cli does"

LONGEST_FILE, LONGEST_FUNCTION = 350, 60
MOST_AT_THE_ROOT = 8  # modules; what is new belongs in a folder


def complaints(path: str, source: str) -> Iterator[str]:
    """What breaks a rule in one file; `path` is relative to the package."""
    tree = ast.parse(source)
    module = Path(path).parts[0].removesuffix(".py")
    if module == "__init__":  # gathers the public names, lazily: tested below
        pass
    elif module not in ORDER:
        yield f"{module} has no place yet: put it into ORDER of {Path(__file__).name}"
    else:
        for name in imported_names(path, tree):
            yield from import_complaints(path, module, name)
    if module not in ("cli", "__main__"):
        found = output_complaints(tree)
        yield from (one for one in found if not (path in EXITING and one.endswith(EXITS)))
    if Path(path).parts[:1] != ("models",) or Path(path).parts[1] not in FAMILIES:
        yield from name_complaints(path, tree)
    yield from length_complaints(source, tree)


def imported_names(path: str, tree: ast.AST) -> Iterator[str]:
    """Yield every imported name in full, also inside functions: "torch.Tensor"."""
    here = ["malmm_cli", *Path(path).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def import_complaints(path: str, module: str, name: str) -> Iterator[str]:
    root, *rest = name.split(".")
    if root in OWNERS and not OWNERS[root] & {module, path}:
        yield f"imports {root}, which only {' and '.join(sorted(OWNERS[root]))} may"
    known = root == "torch" or root in sys.stdlib_module_names or rest[:1] == ["memory"]
    if module == "memory" and not known:
        yield f"imports {name}: memory knows nothing but torch"
    if root != "malmm_cli" or rest == ["__version__"]:
        return
    other = rest[0] if rest else "malmm_cli"
    if other == "models" != module and rest[1:2] and rest[1] in FAMILIES:
        yield f"imports the family {rest[1]}: the registry finds families by their names"
    if other not in ORDER:
        yield f"imports {name}, which is no module of ORDER"
    elif other in APART.get(module, ()):
        yield f"imports {other}, which {module} must never see"
    elif other != module and ORDER.index(other) < ORDER.index(module):
        yield f"imports {other}, which stands above {module}"
    elif other == module == "models":
        yield from family_complaints(Path(path), rest[1:])


def family_complaints(path: Path, rest: list[str]) -> Iterator[str]:
    """What breaks the order inside models: nobody imports a family, and families no other one."""
    own = path.parts[1] if len(path.parts) > 2 else path.stem
    other = rest[0] if rest else ""
    if own in FAMILIES and other not in {own, *BELOW_FAMILIES}:
        yield f"imports models/{other}, which stands above or beside {own}"
    if own not in FAMILIES and other in FAMILIES:
        yield f"imports the family {other}: the registry finds families by their names"
    if own in BELOW_FAMILIES and other not in BELOW_FAMILIES:
        yield f"imports models/{other}, which stands above {own}"


def name_complaints(path: str, tree: ast.Module) -> Iterator[str]:
    """What only a family may know, in a file of no family; docstrings and comments are free."""
    if path in PROSE:
        return
    rows = ROWS.get(path, set())
    for statement in tree.body:
        targets = getattr(statement, "targets", ())
        if any(isinstance(target, ast.Name) and target.id in rows for target in targets):
            continue
        for line, text in names_and_texts(statement):
            words = re.findall(r"\w+", text.lower())
            if FAMILY_NAMES & {*words} or any(part in w for part in FAMILY_PARTS for w in words):
                yield f"line {line} knows of a family: {text[:40]!r}"


def names_and_texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names and texts in code, docstrings left out, with their lines."""
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in told:
                yield node.lineno, node.value
        else:
            for field in ("id", "attr", "arg", "name", "module"):
                if isinstance(name := getattr(node, field, None), str):
                    yield getattr(node, "lineno", 0), name


def output_complaints(tree: ast.Module) -> Iterator[str]:
    def is_program(node: ast.stmt) -> bool:  # what bench runs as a process of its own
        return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"

    for node in (inner for part in tree.body if not is_program(part) for inner in ast.walk(part)):
        match node:
            case ast.Call(func=ast.Name(id="print"), keywords=keywords):
                if not any(keyword.arg == "file" for keyword in keywords):
                    yield f"line {node.lineno} prints; only cli does"
            case ast.Attribute(value=ast.Name(id="sys"), attr="exit" | "stdout" | "stderr"):
                yield f"line {node.lineno} uses sys.{node.attr}; only cli does"
            case ast.ImportFrom(module="sys"):
                yield f"line {node.lineno}: write `import sys`, so that its use shows"
            case ast.Name(id="SystemExit" | "exit" | "quit") | ast.Attribute(attr="_exit"):
                yield f"line {node.lineno} {EXITS}"


def length_complaints(source: str, tree: ast.AST) -> Iterator[str]:
    lines = source.count("\n")
    if lines > LONGEST_FILE:
        yield f"has {lines} lines, more than {LONGEST_FILE}: does it still do one job?"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{node.name} has {lines} lines, more than {LONGEST_FUNCTION}"


def imports_when_loaded(sources: dict[str, str]) -> dict[str, set[str]]:
    """Each module's own modules that it imports at once, not in functions or for types alone."""
    known = {path.removesuffix(".py").removesuffix("/__init__"): path for path in sources}
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        statements = [s for s in ast.parse(sources[path]).body if not isinstance(s, ast.If)]
        names = imported_names(path, ast.Module([s for s in statements if is_import(s)], []))
        parts = [name.split(".")[1:] for name in names if name.startswith("malmm_cli.")]
        # the last part of "from x import y" is a module or a name in one
        named = ("/".join(p) if "/".join(p) in known else "/".join(p[:-1]) for p in parts)
        graph[module] = {name for name in named if name in known} - {module}
    return graph


def is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def cycle_in(sources: dict[str, str]) -> tuple[str, ...]:
    """Modules that import each other in a ring, () where there are none."""
    try:
        TopologicalSorter(imports_when_loaded(sources)).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return ()


def test_no_modules_import_each_other():
    files = PACKAGE.rglob("*.py")
    assert not cycle_in({f.relative_to(PACKAGE).as_posix(): f.read_text("utf-8") for f in files})


def test_a_ring_of_imports_is_found():
    ring = {
        "a.py": "from malmm_cli.b.c import x",
        "b/__init__.py": "",
        "b/c.py": "from malmm_cli.b import d",
        "b/d.py": "import malmm_cli.a",
    }
    assert set(cycle_in(ring)) == {"a", "b/c", "b/d"}
    late = {**ring, "b/d.py": "def f():\n    import malmm_cli.a"}
    assert cycle_in(late) == ()


def test_the_root_stays_small():
    modules = [path.name for path in PACKAGE.glob("*.py")]
    assert len(modules) <= MOST_AT_THE_ROOT, sorted(modules)


def test_the_package_keeps_the_rules():
    files = sorted(PACKAGE.rglob("*.py"))
    assert files
    found = [
        f"malmm_cli/{path}: {complaint}"
        for path, source in ((str(f.relative_to(PACKAGE)), f.read_text("utf-8")) for f in files)
        for complaint in complaints(path, source)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("helpers.py", "", "no place yet"),
        ("memory.py", "import numpy", "nothing but torch"),
        ("memory.py", "from malmm_cli.errors import UsageError", "nothing but torch"),
        ("types.py", "from malmm_cli.pipeline.watch import caption", "stands above types"),
        ("types.py", "def f():\n    from . import cli", "stands above types"),
        ("types.py", "import malmm_cli.cli.ask", "stands above types"),
        ("pipeline.py", "from malmm_cli import caption", "no module of ORDER"),
        ("models/base.py", "from malmm_cli.media import read", "must never see"),
        ("models/base.py", "from ..hub import locate", "must never see"),
        ("models/generation.py", "from malmm_cli.models import registry", "stands above"),
        ("models/registry.py", "from malmm_cli.models.instructblip import load", "by their names"),
        ("pipeline/watch.py", "from malmm_cli.models.instructblip.load import x", "by their names"),
        ("models/instructblip/model.py", "from malmm_cli.models import registry", "beside"),
        ("models/instructblip/model.py", "from malmm_cli.models.vlm import x", "beside"),
        ("hub/snapshot.py", "X = 'qformer_tokenizer/vocab.txt'", "knows of a family"),
        ("hub/registry.py", "OTHER = 'instructblip'", "knows of a family"),
        ("train/export.py", "def f(state):\n    return state.query_tokens", "knows of a family"),
        ("models/generation.py", "def f(qformer_config): ...", "knows of a family"),
        ("cli/ask.py", "f'use an InstructBLIP model, not {x}'", "knows of a family"),
        ("pipeline.py", "import av.container", "only datasets/synthetic/video.py and media"),
        ("pipeline.py", "import ffmpeg", "only media"),
        ("train/job.py", "from huggingface_hub import snapshot_download", "and hub may"),
        ("pipeline.py", "from rich.progress import Progress", "only __main__ and cli"),
        ("pipeline.py", "import typer", "only __main__ and cli"),
        ("pipeline.py", "print('done')", "prints"),
        ("pipeline.py", "import sys\nsys.exit(1)", "sys.exit"),
        ("pipeline.py", "import sys\nprint('done', file=sys.stderr)", "sys.stderr"),
        ("pipeline.py", "from sys import exit", "import sys"),
        ("pipeline.py", "raise SystemExit(1)", "exits"),
        ("pipeline.py", "import os\nos._exit(1)", "exits"),
        ("types.py", "x = 1\n" * 351, "351 lines"),
        ("types.py", "def f():\n" + "    x = 1\n" * 60, "f has 61 lines"),
    ],
)
def test_a_broken_rule_is_noticed(path, source, expected):
    assert expected in "\n".join(complaints(path, source))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("__init__.py", "from malmm_cli.pipeline.watch import caption"),
        ("cli.py", "import rich, sys, malmm_cli.pipeline.watch\nprint(1)\nsys.exit(0)"),
        ("cli/ask.py", "from malmm_cli.cli.options import Model"),
        ("pipeline.py", "from malmm_cli import __version__, media"),
        ("media/pyav.py", "import av\nfrom malmm_cli.types import Frame"),
        (
            "models/instructblip/model.py",
            "from malmm_cli.models.instructblip.qformer import QFormer",
        ),
        ("formats.py", "def write(file):\n    print('text', file=file)"),
        ("bench.py", "import sys\nif __name__ == '__main__':\n    sys.stdout.write('1')"),
        ("memory.py", "import math, torch\nfrom torch.nn import functional as F"),
        ("hub/registry.py", "KNOWN = {'instructblip': 1}"),
        ("models/registry.py", "FAMILIES = {'instructblip': 'instructblip'}"),
        ("models/instructblip/load.py", "x = 'qformer_tokenizer'"),
        ("train/loop.py", 'def f():\n    """As InstructBLIP does it."""  # instructblip'),
        ("types.py", "x = 1\n" * 350),
        ("types.py", "def f():\n" + "    x = 1\n" * 59),
    ],
)
def test_what_the_rules_allow(path, source):
    assert not list(complaints(path, source))


def test_importing_the_command_line_is_light():
    heavy = {"torch", "transformers", "av", "numpy", "PIL", "msgspec"}
    heavy |= {"malmm_cli.media", "malmm_cli.batch"}
    code = f"import sys, malmm_cli, malmm_cli.cli; print(*{heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stdout.split(), f"--help would wait for: {run.stdout}"


def repository_files() -> Iterator[Path]:
    """Yield the files git would take: all but .git and what .gitignore names."""
    ignored = [".git", *(REPOSITORY / ".gitignore").read_text().split()]
    patterns = [pattern.strip("/") for pattern in ignored]

    def kept(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    for folder, folders, files in os.walk(REPOSITORY):
        folders[:] = filter(kept, folders)
        yield from (Path(folder, name) for name in filter(kept, files))


def test_no_file_names_a_place_outside_the_repository():
    strangers = [b"../" + b"shared", b"/wor" + b"k/"]
    found = [
        f"{path.relative_to(REPOSITORY)}: {stranger.decode()}"
        for path in repository_files()
        for stranger in strangers
        if stranger in path.read_bytes()
    ]
    assert not found, "\n" + "\n".join(found)
