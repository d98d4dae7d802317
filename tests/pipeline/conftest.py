"""Tiny random vision-language models, and pictures that a memory file keeps bit by bit."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from helpers.commands import WORDS
from PIL import Image

import malmm_cli
from malmm_cli.models.vlm import random_init
from malmm_cli.pipeline import memory_pictures


@pytest.fixture(scope="session")
def vlm_folder(tmp_path_factory):
    """Folders by architecture, each made once."""

    @cache
    def made(name):
        folder = tmp_path_factory.mktemp("vlm") / name
        random_init.write(folder, random_init.tiny_config(name), WORDS)
        return folder

    return made


@pytest.fixture(scope="session")
def vlm(vlm_folder):
    """Loaded models by architecture."""
    return cache(lambda name: malmm_cli.load(str(vlm_folder(name))))


@pytest.fixture
def lossless(monkeypatch):
    """Pictures in PNG in place of JPEG."""

    def compressed(pixels):
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        return file.getvalue()

    monkeypatch.setattr(memory_pictures, "_compressed", compressed)
    monkeypatch.setattr(
        memory_pictures, "_pixels", lambda file: np.array(Image.open(io.BytesIO(file)))
    )
