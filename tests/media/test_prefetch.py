"""Prefetching in a thread: order, bounds, errors, and that nothing is left over."""

import threading
import time

import pytest

from malmm_cli.media.prefetch import prefetch


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def counted(made, number):
    for item in range(number):
        made.append(item)
        yield item


def wait_until(done):
    until = time.monotonic() + 5
    while not done() and time.monotonic() < until:
        time.sleep(0.001)
    assert done()


def test_all_items_in_their_order():
    assert list(prefetch(iter(range(100)), 3)) == list(range(100))
    assert list(prefetch(iter([]), 3)) == []
    assert not threads()


def test_it_is_so_many_items_ahead_and_no_more():
    made = []
    items = prefetch(counted(made, 10), 3)
    assert made == []
    assert next(items) == 0
    wait_until(lambda: made == [0, 1, 2, 3])
    time.sleep(0.02)
    assert made == [0, 1, 2, 3]
    assert list(items) == list(range(1, 10))


def test_closing_ends_thread_and_items():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    items = prefetch(endless(), 2)
    next(items)
    assert len(threads()) == 1
    items.close()
    assert not threads()
    assert closed == ["prefetch"]


def test_errors_come_in_their_turn():
    def some():
        yield 1
        yield 2
        raise ValueError("the third is broken")

    items = prefetch(some(), 8)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the third is broken"):
        next(items)
    assert not threads()


def test_an_error_of_the_reader_leaves_no_thread():
    def read():
        for _ in prefetch(iter(range(10)), 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    wait_until(lambda: not threads())


def test_a_thread_that_hangs_is_left_to_itself(monkeypatch):
    monkeypatch.setattr("malmm_cli.media.prefetch.PATIENCE", 0.05)
    go_on = threading.Event()

    def hangs():
        yield 1
        go_on.wait(5)

    items = prefetch(hangs(), 2)
    assert next(items) == 1
    begun = time.monotonic()
    items.close()
    assert time.monotonic() - begun < 1
    go_on.set()
    wait_until(lambda: not threads())
