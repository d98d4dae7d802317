"""`python -m malmm_cli` and the command `malmm`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from malmm_cli.cli import run
    except KeyboardInterrupt:  # in the first moments
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
