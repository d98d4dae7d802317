"""Compression against the authors' `memory_bank_compress`, alone and in streams."""

import pytest
import torch
from helpers.reference import case, cases, close

from malmm_cli.memory.bank import MemoryBank, PlainBank
from malmm_cli.memory.rule import Rule


def nothing(rows):
    return [rows]


def stored(bank):
    """Entries and counts in time order; (B, T, P, C) and (B, T, P)."""
    return (bank.entries, bank.counts) if isinstance(bank, PlainBank) else bank.in_time()


@pytest.mark.parametrize(("file", "name"), cases("compression"))
def test_single_compression(file, name):
    given = case(file, name)
    bank, counts = Rule().compress(given.in_bank, given.in_size)
    close(bank, given.out_bank)
    assert torch.equal(counts, given.out_size)


@pytest.mark.parametrize("form", [PlainBank, MemoryBank])
@pytest.mark.parametrize(("file", "name"), cases("stream"))
def test_stream(file, name, form):
    given = case(file, name)
    bank = form(given.entry["M"])
    for step in range(given.frames.shape[1]):
        projections = bank.read(given.frames[:, step], nothing)
        bank.append(nothing)
        entries, counts = stored(bank)
        held = min(step + 1, given.entry["M"])
        assert torch.equal(counts, given.size[step][:, :held]), f"step {step}"
        close(entries, given.bank[step][:, :held])
    assert projections[0].shape[1] == (held + 1) * entries.shape[2]


@pytest.mark.parametrize("form", [PlainBank, MemoryBank])
@pytest.mark.parametrize(("file", "name"), cases("ties"))
def test_ties(file, name, form):
    """The first tie is decided as in the reference; after it rounding decides: values alone."""
    given = case(file, name)
    length = given.bank.shape[2]
    bank = form(length)
    for step in range(given.frames.shape[1]):
        bank.read(given.frames[:, step], nothing)
        bank.append(nothing)
        entries, counts = stored(bank)
        held = min(step + 1, length)
        close(entries, given.bank[step][:, :held])
        if step <= length:
            assert torch.equal(counts, given.size[step][:, :held])
        assert torch.equal(counts.sum(1), torch.full_like(counts[:, 0], step + 1))
