"""Measuring without a process for each row."""

import json

import pytest


@pytest.fixture
def here(monkeypatch, load_once, one_thread):
    """Measures in this process."""
    from malmm_cli.bench import steps, video
    from malmm_cli.bench.__main__ import MEASURES
    from malmm_cli.models import registry

    def in_child(name, **arguments):
        return json.loads(json.dumps(MEASURES[name](**arguments)))

    monkeypatch.setattr(registry, "load", load_once)
    for module in (steps, video):
        monkeypatch.setattr(module, "in_child", in_child)
