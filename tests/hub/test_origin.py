"""What a model folder says of where the model comes from."""

import pytest

from malmm_cli import hub
from malmm_cli.checkpoints.layout import copy_beside_weights
from malmm_cli.errors import ModelError
from malmm_cli.hub.origin import FILE, Origin, origin_of


def test_the_bundled_model_says_what_it_knows():
    origin = hub.locate("tiny").origin
    assert origin.world == "drawings"
    assert "malmm synth" in origin.note == hub.describe("tiny")["note"]


def test_a_model_trained_from_another_keeps_its_origin(tmp_path):
    base = hub.locate("tiny")
    (tmp_path / "mine").mkdir()
    copy_beside_weights(base.folder, tmp_path / "mine")
    assert origin_of(tmp_path / "mine") == base.origin


def test_without_the_file_nothing_is_said(tmp_path):
    assert origin_of(tmp_path) == Origin()


@pytest.mark.parametrize("text", ["note = ", "note = 3", 'world = "moon"', 'notes = "x"', "\xff"])
def test_a_broken_file_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=FILE):
        origin_of(tmp_path)
