from __future__ import annotations

import itertools
import random

import pytest

from tests.bench.speed.figures import Bar, best_schedule, percentile, ratio, spread


def optimum(seconds: list[float], processes: int) -> float:
    """By trying every assignment."""

    def end(places: tuple[int, ...]) -> float:
        work = [0.0] * processes
        for piece, place in zip(seconds, places, strict=True):
            work[place] += piece
        return max(work)

    return min(end(places) for places in itertools.product(range(processes), repeat=len(seconds)))


@pytest.mark.parametrize(
    ("bar", "value", "verdict"),
    [
        (Bar(10, "least"), 10.0, "met"),
        (Bar(10, "least"), 9.99, "missed"),
        (Bar(3, "most", ""), 3.0, "met"),
        (Bar(3, "most", ""), 3.01, "missed"),
        (Bar(1.5, "least", goal=True), 1.4, "goal missed"),
        (Bar(1.5, "least", goal=True), 1.6, "goal met"),
    ],
)
def test_a_bar_is_met_at_its_limit_and_on_its_side(bar: Bar, value: float, verdict: str) -> None:
    assert bar.verdict(value) == verdict


def test_a_bar_says_what_it_asks() -> None:
    assert str(Bar(10, "least")) == "at least 10 x"
    assert str(Bar(3, "most", " commands")) == "at most 3 commands"


def test_the_ratio_is_of_rounds_and_not_of_medians() -> None:
    assert ratio([4, 9, 100], [1, 3, 50]) == 3
    assert ratio([1, 10, 10], [1, 1, 10]) == 1  # That of the medians is 10.


@pytest.mark.parametrize(("over", "under"), [([], []), ([1.0], []), ([1.0], [1.0, 2.0])])
def test_a_ratio_needs_the_same_rounds(over: list[float], under: list[float]) -> None:
    with pytest.raises(ValueError, match="as many rounds"):
        ratio(over, under)


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(200, 0, -1)]
    assert [percentile(values, percent) for percent in (50, 90, 99, 100)] == [100, 180, 198, 200]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0


def test_long_pieces_first_and_short_ones_in_the_gaps() -> None:
    mixed = [0.001] * 990 + [1.0] * 10
    assert best_schedule(mixed, 2) == pytest.approx(5.495)
    assert best_schedule([0.01] * 1000, 2) == pytest.approx(5.0)
    assert best_schedule([3.0, 1.0], 2) == 3.0


def test_the_best_schedule_lies_between_the_optimum_and_a_third_more() -> None:
    chance = random.Random(7)
    for _ in range(60):
        pieces = [chance.randint(1, 20) / 4 for _ in range(chance.randint(1, 8))]
        processes = chance.randint(1, 3)
        found, best = best_schedule(pieces, processes), optimum(pieces, processes)
        assert best - 1e-9 <= found <= best * 4 / 3 + 1e-9


def test_a_spread_is_in_the_unit_that_says_more() -> None:
    assert spread([1.2, 1.0, 1.4]) == "1.2 s (1 to 1.4)"
    assert spread([0.0021, 0.002, 0.003]) == "2.1 ms (2 to 3)"
