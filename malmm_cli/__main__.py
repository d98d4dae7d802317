"""`python -m malmm_cli` and the command `malmm`."""

from __future__ import annotations

import sys

from malmm_cli.cli import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run())


if __name__ == "__main__":
    main()
