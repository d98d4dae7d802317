"""Tiny random models of each architecture, each made once."""

from functools import cache

import pytest

from malmm_cli.models import registry
from malmm_cli.models.vlm import random_init
from malmm_cli.models.vlm.load import ADAPTERS

WORDS = ["what", "does", "the", "video", "describe", "red", "circle", "how", "many", "short"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders of tiny models by architecture."""

    @cache
    def made(name: str):
        folder = tmp_path_factory.mktemp("vlm") / name
        random_init.write(folder, random_init.tiny_config(name), WORDS)
        return folder

    return made


@pytest.fixture(scope="session")
def models(folders):
    """Loaded ones."""
    return cache(lambda name: registry.load(folders(name)))


@pytest.fixture(params=list(ADAPTERS))
def model(request, models):
    """One of each architecture."""
    return models(request.param)
