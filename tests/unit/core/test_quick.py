"""Values with the quick constructor are what the dataclasses were."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from graflow_celery.core import commands, events, place, plan, policy, state
from graflow_celery.core.quick import quick


@quick
@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    seen: list[int] = field(default_factory=list)


def test_it_takes_what_the_dataclass_took() -> None:
    assert Point(1) == Point(x=1, y=2, seen=[])
    assert Point(1, 3, [4]).seen == [4]
    assert list(inspect.signature(Point).parameters) == ["x", "y", "seen"]
    with pytest.raises(TypeError, match="missing"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected"):
        Point(1, z=2)  # type: ignore[call-arg]


def test_what_a_factory_makes_is_made_for_each() -> None:
    assert Point(1).seen is not Point(1).seen


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Point(1).x = 2  # type: ignore[misc]


def test_it_is_replaced_and_pickled() -> None:
    point = Point(1, 5, [6])
    assert replace(point, x=7) == Point(7, 5, [6])
    assert pickle.loads(pickle.dumps(point)) == point


def test_a_class_that_does_more_is_refused() -> None:
    with pytest.raises(TypeError, match="more than to fill"):

        @quick
        @dataclass(frozen=True, slots=True)
        class Checked:
            x: int

            def __post_init__(self) -> None: ...


@pytest.mark.parametrize("kind", [commands.DispatchNode, events.NodeSucceeded, place.Place, plan.NodeSpec])
def test_values_of_the_core_are_quick(kind: type) -> None:
    assert "_set_" in "".join(kind.__init__.__code__.co_names)  # type: ignore[misc]


@pytest.mark.parametrize("kind", [state.Transition, state.NodeRecord, state.Emission, policy.MemberOutcome])
def test_so_are_those_of_its_state(kind: type) -> None:
    assert "_set_" in "".join(kind.__init__.__code__.co_names)  # type: ignore[misc]
