"""What tests of training share."""

import pytest
from helpers.training import run_command


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.fixture
def run(capsys):
    return lambda *arguments: run_command(capsys, *arguments)
