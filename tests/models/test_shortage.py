"""One smaller step where memory runs out, then one line that says what helps."""

import pickle
import weakref
from types import SimpleNamespace

import pytest
import torch

from malmm_cli.errors import CapacityError
from malmm_cli.models.shortage import ShortageError, Step, is_out_of_memory

SAID = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 10 GB)."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]
OTHER = [RuntimeError("shapes differ"), ValueError("out of memory"), KeyboardInterrupt(), None]


def net(device="cpu", dtype=torch.float32, bits=None):
    spec = SimpleNamespace(bits=bits)
    return SimpleNamespace(device=torch.device(device), dtype=dtype, spec=spec)


@pytest.mark.parametrize(
    ("error", "known"), [*((e, True) for e in SAID), *((e, False) for e in OTHER)]
)
def test_what_says_so(error, known):
    assert is_out_of_memory(error) == known


def done(step, total, most, *, error=SAID[0]):
    """How many were tried each time, where `most` fit at once."""
    tried, number = [], 0
    while number < total:
        with step:
            tried.append(min(step.size, total - number))
            if tried[-1] > most:
                raise error
            number += tried[-1]
    return tried


def test_the_step_is_smaller_once_and_stays_so():
    assert done(Step(net(), 16, "see {}", "frame"), 40, most=16) == [16, 16, 8]
    assert done(Step(net(), 16, "see {}", "frame"), 10, most=4) == [10, 4, 4, 2]
    assert done(Step(net(), 3, "see {}", "frame"), 3, most=1) == [3, 1, 1, 1]
    assert done(Step(net(), 14, "see {}", "frame", least=2), 6, most=2) == [6, 2, 2, 2]


@pytest.mark.parametrize(
    ("size", "least", "tried", "says"),
    [(16, 1, 2, "4 frames at a time"), (7, 1, 2, "1 frame at a time"), (2, 2, 1, "2 frames at a")],
)
def test_after_that_it_is_an_error(size, least, tried, says):
    begun = []

    def see(step):
        while True:
            with step:
                begun.append(step.size)
                raise torch.OutOfMemoryError

    with pytest.raises(ShortageError, match=f"not enough memory on cpu in float32 to see {says}"):
        see(Step(net(), size, "see {}", "frame", least=least))
    assert len(begun) == tried


def test_other_errors_are_left_alone():
    for error in (RuntimeError("shapes differ"), CapacityError("the disk is full")):
        with pytest.raises(type(error), match=str(error)):
            done(Step(net(), 4, "see {}", "frame"), 4, most=0, error=error)


def test_what_the_failed_attempt_held_is_gone_before_the_next(monkeypatch):
    alive, released = [], []

    def attempt(size):
        held = torch.zeros(1000)
        alive.append(weakref.ref(held))
        if size == 4:
            raise torch.OutOfMemoryError
        return [ref() is None for ref in alive]

    monkeypatch.setattr("malmm_cli.models.shortage.release", lambda: released.append(alive[0]()))
    step, found = Step(net(), 4, "see {}", "frame"), None
    while found is None:
        with step:
            found = attempt(step.size)
    assert found == [True, False]
    assert released == [None], "once, after it was gone"


@pytest.mark.parametrize(
    ("where", "hint"),
    [
        (net(), "try fewer --beams, --dtype bfloat16 or a smaller --model"),
        (net("cpu", torch.bfloat16), "try fewer --beams or a smaller --model"),
        (
            net("cuda:0", torch.float16),
            "try fewer --beams, --quantize 4bit, --device cpu or a smaller --model",
        ),
        (net("cuda:0", torch.float16, 4), "try fewer --beams, --device cpu or a smaller --model"),
        (
            net("mps"),
            "try fewer --beams, --dtype float16, --device cpu or a smaller --model",
        ),
    ],
)
def test_only_what_helps_there_is_named(where, hint):
    with pytest.raises(ShortageError) as caught:
        done(Step(where, 1, "see {}", "frame", remedies={"beams": "fewer --beams"}), 1, most=0)
    assert caught.value.hint == hint
    assert caught.value.kind == "CapacityError"
    caught.value.leave_out(["beams", "device"])
    assert "beams" not in caught.value.hint
    assert "device" not in caught.value.hint


def test_it_can_be_sent_to_another_process():
    error = ShortageError("not enough", remedies={"beams": "fewer --beams"})
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.hint, again.kind) == (
        "not enough",
        "try fewer --beams",
        error.kind,
    )
