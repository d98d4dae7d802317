from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from malmm_cli.errors import UsageError
from malmm_cli.media.sampling import choose
from malmm_cli.settings import Sampling

RATES = [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(10), Fraction(240)]
UNITS = [None, 1000, 90000, 12800]


def steady(count: int, rate: Fraction = Fraction(25), unit: int | None = None) -> np.ndarray:
    """Times at a constant rate, rounded to 1/`unit` as a container would."""
    times = [Fraction(number) / rate for number in range(count)]
    if unit:
        times = [Fraction(round(time * unit), unit) for time in times]
    return np.array([float(time) for time in times])


def numbers(seconds: np.ndarray, **options: float | None) -> list[int]:
    """Choose, and say which of `seconds` were chosen."""
    duration = options.pop("duration", None)
    if duration is None:
        duration = seconds[-1] + (seconds[1] - seconds[0] if len(seconds) > 1 else 0.0)
    chosen = choose(seconds, duration, Sampling(**{"frames": None, **options}))
    assert np.isin(chosen, seconds).all()
    return np.searchsorted(seconds, chosen).tolist()


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", RATES)
def test_frames_at_constant_rate_are_those_of_rint_linspace(
    rate: Fraction, unit: int | None
) -> None:
    for count in (1, 2, 3, 8, 9, 100, 101, 997):
        seconds = steady(count, rate, unit)
        for wanted in {1, 2, 3, 4, 5, 8, 20, 64, 100, count} & set(range(1, count + 1)):
            expected = np.rint(np.linspace(0, count - 1, wanted)) if wanted > 1 else None
            got = numbers(seconds, frames=wanted)
            assert got == ([round((count - 1) / 2)] if expected is None else expected.tolist())


def test_frames_of_a_changing_rate_are_the_nearest_in_time() -> None:
    seconds = np.array([0.0, 0.1, 0.2, 0.3, 9.0, 10.0])
    assert numbers(seconds, frames=3) == [0, 4, 5]  # 0, 5, 10 s
    assert numbers(seconds, frames=1) == [4]
    assert numbers(seconds, frames=5) == [0, 3, 4, 5]  # 2.5 s and 0 s give different pictures


def test_an_instant_between_two_pictures_goes_to_the_even_one() -> None:
    seconds = np.array([0.0, 4.0, 6.0, 10.0, 10.5, 20.0])  # the middle of the first four is 5 s
    assert numbers(seconds, frames=3, end=10.0) == [0, 2, 3]
    assert numbers(np.array([0.0, 1.0, 4.0, 6.0, 10.0]), frames=3) == [0, 2, 4]


def test_more_frames_than_there_are_gives_all_and_never_one_twice() -> None:
    assert numbers(steady(5), frames=100) == [0, 1, 2, 3, 4]
    clustered = np.array([0.0, 0.1, 0.2, 100.0])
    assert numbers(clustered, frames=3) == [0, 2, 3]
    assert numbers(np.array([0.0, 0.1, 0.2, 0.3, 100.0]), frames=4) == [0, 3, 4]


def test_neither_frames_nor_fps_gives_every_picture() -> None:
    assert numbers(steady(7)) == list(range(7))
    assert numbers(steady(9), max_frames=3) == [0, 4, 8]


def test_fps_takes_the_picture_on_the_screen() -> None:
    assert numbers(steady(50), fps=5) == list(range(0, 50, 5))
    assert numbers(np.array([0.0, 0.9, 1.1, 5.0]), fps=1, duration=6.5) == [0, 1, 2, 3]
    assert numbers(steady(50), fps=2) == [0, 12, 25, 37]  # 0.5 s shows picture 12, from 0.48 s


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", RATES)
def test_fps_at_the_rate_of_the_video_gives_every_picture(rate: Fraction, unit: int | None) -> None:
    assert numbers(steady(500, rate, unit), fps=float(rate)) == list(range(500))


def test_fps_of_any_size_costs_nothing_and_gives_each_picture_once() -> None:
    assert numbers(steady(50), fps=1e12) == list(range(50))
    assert numbers(steady(50), fps=1e-9) == [0]


def test_max_frames_thins_out_evenly() -> None:
    assert numbers(steady(100), fps=25, max_frames=4) == [0, 33, 66, 99]
    assert numbers(steady(100), fps=25, max_frames=1) == [50]
    assert numbers(steady(100), fps=1, max_frames=10) == [0, 25, 50, 75]


def test_from_and_to_are_included() -> None:
    assert numbers(steady(100), start=1.0, end=2.0) == list(range(25, 51))
    assert numbers(steady(100), frames=3, start=1.0, end=2.0) == [25, 37, 50]
    assert numbers(steady(100), fps=2, start=1.0, end=2.0) == [25, 37, 50]
    assert numbers(steady(100), fps=2, start=1.0) == [25, 37, 50, 62, 75, 87]
    assert numbers(steady(100), frames=2, end=1e9) == [0, 99]


def test_a_range_in_which_no_picture_begins_gives_the_one_on_the_screen() -> None:
    slides = np.array([0.0, 20.0, 40.0])
    assert numbers(slides, frames=5, start=25.0, end=30.0) == [1]
    assert numbers(slides, fps=1, start=25.0, end=30.0) == [1]
    assert numbers(slides, frames=5, start=50.0) == [2]
    assert numbers(slides, fps=1, start=50.0) == [2]


def test_a_picture_on_the_screen_at_the_start_is_in_the_range() -> None:
    screen = np.concatenate([[0.0], 3600 + np.arange(60) / 25])
    for options in ({"frames": 3}, {"fps": 1.0}, {}, {"frames": 3, "end": 3601.0}):
        assert numbers(screen, start=1800.0, duration=3602.4, **options)[0] == 0
    assert numbers(screen, frames=1, start=1800.0, end=1900.0) == [0]
    # it counts from the start: the second of three instants, 2701 s, is nearer to 3600 s
    assert numbers(screen, frames=3, start=1800.0, duration=3602.4) == [0, 1, 60]
    assert numbers(steady(100), frames=3, start=1.01, end=2.0) == [25, 37, 50]


@pytest.mark.parametrize("options", [{"frames": 8}, {"fps": 1.0}, {}, {"fps": 1.0, "start": 0.0}])
def test_a_still_is_chosen_by_every_rule(options: dict[str, float]) -> None:
    assert numbers(np.array([0.0]), duration=0.0, **options) == [0]


@pytest.mark.parametrize(
    "options",
    [
        {"frames": 8, "fps": 1.0},
        {"frames": 0},
        {"frames": -1},
        {"fps": 0.0},
        {"fps": -1.0},
        {"fps": float("nan")},
        {"fps": float("inf")},
        {"fps": 1.0, "max_frames": 0},
        {"start": -1.0},
        {"start": float("nan")},
        {"start": 2.0, "end": 2.0},
        {"start": 2.0, "end": 1.0},
        {"end": 0.0},
        {"end": float("nan")},
    ],
)
def test_values_without_sense_are_wrong_usage(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        choose(steady(100), 4.0, Sampling(**{"frames": None, **options}))


@pytest.mark.parametrize("start", [4.0, 100.0])
def test_a_start_behind_the_end_names_both(start: float) -> None:
    with pytest.raises(UsageError, match=rf"{start:g} s is past the end .* 4\.00 s"):
        choose(steady(100), 4.0, Sampling(frames=8, start=start))
