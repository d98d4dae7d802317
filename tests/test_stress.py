"""Short forms of the long runs in tests/stress."""

from stress import kept, many, models, mutate, soak


def test_mutated_media():
    kinds = mutate.run(22, seed=1)
    assert kinds["answered"]
    assert len(kinds) > 2


def test_mutated_kept_files(one_thread):
    found = kept.run(25, seed=1)
    assert found["memory files"]["BrokenMemory"]
    assert found["caches"]["made again"]
    assert found["task files"]["refused"]


def test_damaged_model_folders(one_thread):
    kinds = models.run(20, seed=1)
    assert kinds["refused"]
    assert kinds["the same"]


def test_many_small_items(capsys):
    each, rerun = many.run(400)
    assert each < 5 * many.PER_ITEM, "far from what it should be, even on a busy machine"
    assert rerun < many.RERUN


def test_memory_is_flat(one_thread):
    assert soak.run(60, window=15) < 2 * soak.GROWTH
