"""The process in which one measurement runs; started by `child`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from malmm_cli.bench.decoding import measure_decoding
from malmm_cli.bench.forms import FORMS
from malmm_cli.bench.growth import measure_growth
from malmm_cli.bench.size import measure_model
from malmm_cli.bench.steps import measure_step

MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "decoding": measure_decoding,
    "step": measure_step,
    "growth": measure_growth,
    "model": measure_model,
    **FORMS,
}

if __name__ == "__main__":
    _name, _arguments = sys.argv[1:]
    sys.stdout.write(json.dumps(MEASURES[_name](**json.loads(_arguments))) + "\n")
