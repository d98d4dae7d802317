"""What .ci/release-notes lets through: a tag, a version and a changelog that agree."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Something for later.

## [1.2.3] - 2026-01-31

### Fixed

- Something old.

## [1.2.2] - 2026-01-01

- Something older.
"""

EMPTY_SECTION = """# Changelog

## [1.2.3] - 2026-01-31

## [1.2.2] - 2026-01-01

- Something older.
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it is a shell script")


@pytest.fixture
def notes(tmp_path):
    """Runs the script for a tag in a repository with a version and a changelog."""

    def run(tag: str, *, version: str = "1.2.3", changelog: str = CHANGELOG):
        for folder in (".ci", "malmm_cli"):
            (tmp_path / folder).mkdir()
        shutil.copy(REPOSITORY / ".ci" / "release-notes", tmp_path / ".ci")
        (tmp_path / "malmm_cli" / "__init__.py").write_text(
            f'"""A."""\n\n__version__ = "{version}"\n'
        )
        (tmp_path / "CHANGELOG.md").write_text(changelog)
        script = tmp_path / ".ci" / "release-notes"
        return subprocess.run(["bash", script, tag], capture_output=True, text=True, check=False)

    return run


def test_the_notes_are_the_section_of_the_version(notes):
    done = notes("v1.2.3")
    assert (done.returncode, done.stdout) == (0, "### Fixed\n\n- Something old.\n"), done.stderr


@pytest.mark.parametrize(
    ("tag", "options", "message"),
    [
        ("v1.2.4", {}, "the tag is v1.2.4, but the version is 1.2.3"),
        ("1.2.3", {}, "the tag is 1.2.3, but the version is 1.2.3"),
        ("v1.2.4", {"version": "1.2.4"}, 'no section "## [1.2.4] - DATE"'),
        ("v1.2", {"version": "1.2"}, 'no section "## [1.2] - DATE"'),
        ("v1.2.3", {"changelog": EMPTY_SECTION}, 'no section "## [1.2.3] - DATE"'),
    ],
)
def test_what_disagrees_is_not_released(notes, tag, options, message):
    done = notes(tag, **options)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_the_changelog_keeps_a_place_for_what_comes_next():
    lines = (REPOSITORY / "CHANGELOG.md").read_text("utf-8").splitlines()
    assert next(line for line in lines if line.startswith("## ")) == "## [Unreleased]"
