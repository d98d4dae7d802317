"""Tiny vision-language models in the published layout, each made once."""

from functools import cache

import pytest
from helpers.hub_models import publish_vlm


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Folders by architecture."""

    @cache
    def made(architecture):
        return publish_vlm(tmp_path_factory.mktemp("check"), "someone/model", architecture)

    return made
