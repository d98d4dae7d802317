"""Which row of the table a slot has, within the table and beyond it; what is heard in a bank."""

import pytest
import torch

from malmm_cli.models.base import Features
from malmm_cli.models.video_llama import random_init
from malmm_cli.models.video_llama.load import load
from malmm_cli.models.video_llama.positions import table_rows
from malmm_cli.settings import Decoding, MemoryOptions


def rows(counts, seen, **sizes):
    column = torch.tensor(counts)[:, None]
    return table_rows(column, seen, **{"length": 32, "rows": 32, **sizes})[:, 0].tolist()


@pytest.mark.parametrize("seen", [1, 8, 32])
def test_as_many_as_the_table_have_their_own_rows(seen):
    assert rows([1] * seen, seen) == [*range(seen)]


def test_beyond_the_table_a_slot_has_the_row_of_its_mean_number():
    counts = [10, 1, 50, 38, 1]
    means = [4.5, 10, 35.5, 79.5, 99]
    assert rows(counts, 100) == [round(mean * 31 / 99) for mean in means]


def test_a_shorter_bank_spreads_earlier():
    assert rows([1, 1, 1], 3, length=2) == [0, round(31 / 2), 31]


def test_skipped_and_dropped_features_keep_their_numbers():
    assert rows([1, 1], 5) == [3, 4]
    assert rows([1, 1], 63) == [round(61 * 31 / 62), 31]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hearing") / "tiny"
    random_init.write(folder, random_init.tiny_config(), ["what", "red"])
    return load(folder)


def clips(number):
    width = random_init.tiny_config().audio_qformer_config.encoder_hidden_size
    rows = torch.randn(number, 1, width, generator=torch.Generator().manual_seed(3))
    return Features(rows, torch.arange(float(number)).double()[:, None].expand(-1, 2))


def test_an_hour_of_sound_is_heard_whole_in_a_bank_of_eight(model, one_thread):
    memory, heard = model.start(["?"], MemoryOptions(32, banks="visual")), clips(100)
    for clip in range(100):
        model.hear(memory, heard.some(slice(clip, clip + 1)))
    slots = memory.sound.slots()
    assert (len(slots.rows), int(slots.counts.sum())) == (9, 100)
    context = model.context(memory)
    assert context.extras["sound"].all()
    other = model.start(["?"], MemoryOptions(32, banks="visual"))
    model.hear(other, heard._replace(rows=heard.rows * torch.linspace(2, 1, 100)[:, None, None]))
    assert not torch.allclose(model.context(other).tokens, context.tokens)


def test_sound_alone_has_a_prompt(model, one_thread):
    memory = model.start(["?"], MemoryOptions(32, banks="visual"))
    model.hear(memory, clips(3))
    context = model.context(memory)
    told = model.generate(context, ["what?"], Decoding(max_new_tokens=4, beams=1))
    assert len(told) == len(told[0]) == 1
