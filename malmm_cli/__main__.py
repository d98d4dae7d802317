"""`python -m malmm_cli` and the command `malmm`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        from malmm_cli.cli import run
    except KeyboardInterrupt:  # in the first moments
        sys.exit(130)
    code = run()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # all is written: Ctrl-C just ends it
    sys.exit(code)


if __name__ == "__main__":
    main()
