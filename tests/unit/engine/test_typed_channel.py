"""A typed channel takes messages of its type alone, and gives them back as they were."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Any, Generic, Literal, NewType, NotRequired, Required, TypedDict, TypeVar, assert_type

import pydantic
import pytest

from graflow_celery import TaskExecutionContext, task, workflow
from graflow_celery.engine.typed_channel import TypedChannel
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import Channel

T = TypeVar("T")
Cents = NewType("Cents", int)


class Progress(TypedDict):
    task: str
    done: float
    note: NotRequired[str]


class Sparse(TypedDict, total=False):
    id: Required[int]
    tags: list[str]


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str
    price: Cents
    colour: Colour | None = None


@dataclass(frozen=True)
class Order:
    number: int
    items: list[Item]
    corner: tuple[int, float] = (0, 0.0)
    path: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()
    by_name: Mapping[str, Item] = field(default_factory=dict)
    kind: Literal["new", "old"] = "new"
    progress: Progress | None = None
    on: date | None = None
    anything: Any = None
    numbers: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("a number is not negative")


@dataclass
class Box(Generic[T]):
    content: T


@dataclass
class Outer:
    box: Box[int]
    counted: int = field(default=0, init=False)


class Point(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    x: int = pydantic.Field(ge=0)
    at: date = date(2026, 1, 2)
    names: tuple[str, ...] = pydantic.Field(default=(), alias="labels")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.x * 2


@dataclass
class Line:
    start: Point
    end: Point


@pytest.fixture
def channel() -> MemoryChannel:
    return MemoryChannel()


MESSAGES: list[tuple[type[Any], Any]] = [
    (Progress, {"task": "a", "done": 0.5}),
    (Progress, {"task": "a", "done": 1, "note": "ready"}),
    (Sparse, {"id": 1}),
    (Sparse, {"id": 1, "tags": ["a"]}),
    (Item, Item("pen", Cents(120), Colour.RED)),
    (Order, Order(1, [])),
    (
        Order,
        Order(
            number=2,
            items=[Item("pen", Cents(120)), Item("ink", Cents(5), Colour.BLUE)],
            corner=(1, 2.5),
            path=("a", "b"),
            marks=frozenset("xy"),
            by_name={"pen": Item("pen", Cents(1))},
            kind="old",
            progress={"task": "a", "done": 0.0},
            on=date(2026, 1, 2),
            anything=[{"k": (1,)}],
            numbers=[1, 2],
        ),
    ),
    (Outer, Outer(Box(7))),
    (Point, Point(x=1, labels=("a", "b"))),
    (Line, Line(Point(x=0), Point(x=2, at=date(2026, 3, 4)))),
]


def names(cases: Sequence[tuple[Any, ...]]) -> list[str]:
    return [f"{kind.__name__}-{index}" for index, (kind, *_) in enumerate(cases)]


@pytest.mark.parametrize(("kind", "message"), MESSAGES, ids=names(MESSAGES))
def test_what_is_sent_is_received(channel: MemoryChannel, kind: type[Any], message: Any) -> None:
    typed = TypedChannel(channel, kind)
    if kind is Order:  # A tuple is a Sequence too, but comes back as a list.
        message = Order(**{**vars(message), "numbers": list(message.numbers)})
    typed.send("key", message)
    assert typed.receive("key") == message
    assert typed.get("key") == message
    assert type(typed.get("key")) is type(message)
    assert typed.append("list", message) == 1
    assert typed.prepend("list", message) == 2
    assert typed.get("list") == [message, message]


def test_in_the_channel_lie_plain_values(channel: MemoryChannel) -> None:
    TypedChannel(channel, Item).set("item", Item("pen", Cents(120), Colour.RED))
    TypedChannel(channel, Point).set("point", Point(x=1, labels=("a",)))
    TypedChannel(channel, Box).set("box", Box((1, 2)))
    assert channel.get("item") == {"name": "pen", "price": 120, "colour": "red"}
    assert channel.get("point") == {"x": 1, "at": "2026-01-02", "labels": ["a"]}
    assert channel.get("box") == {"content": (1, 2)}


@dataclass
class SpecialItem(Item):
    special: int = 0


MISFITS: list[tuple[type[Any], Any, str]] = [
    (Progress, {"task": "a"}, "Progress needs 'done'"),
    (Progress, {"task": "a", "done": "half"}, "done: str, not float"),
    (Progress, {"task": "a", "done": True}, "done: bool, not float"),
    (Progress, {"task": "a", "done": 0.5, "extra": 1}, "Progress has no 'extra'"),
    (Progress, [("task", "a")], "list, not Progress"),
    (Progress, None, "NoneType, not Progress"),
    (Sparse, {"tags": []}, "Sparse needs 'id'"),
    (Sparse, {"id": 1, "tags": ["a", 2]}, r"tags\[1\]: int, not str"),
    (Item, {"name": "pen", "price": 1}, "dict, not Item"),
    (Item, SpecialItem("pen", Cents(1)), "SpecialItem, not Item"),
    (Item, Item("pen", True), "price: bool, not int"),  # type: ignore[arg-type]
    (Item, Item("pen", Cents(1), "red"), "colour: str, not Colour; colour: str, not NoneType"),  # type: ignore[arg-type]
    (Order, Order(1, [Item("pen", "1")]), r"items\[0\]\.price: str, not int"),  # type: ignore[arg-type]
    (Order, Order(1, [], corner=(1,)), "corner: 1 items, not 2"),  # type: ignore[arg-type]
    (Order, Order(1, [], path=["a"]), "path: list, not tuple"),  # type: ignore[arg-type]
    (Order, Order(1, [], kind="odd"), "kind: str, not one of 'new', 'old'"),  # type: ignore[arg-type]
    (Order, Order(1, [], by_name={"pen": 1}), r"by_name\['pen'\]: int, not Item"),  # type: ignore[dict-item]
    (Point, Point.model_construct(x=-1), "greater than or equal to 0"),
    (Point, Point.model_construct(x="1"), "valid integer"),
    (Point, {"x": 1}, "dict, not Point"),
    (Line, Line(Point(x=0), None), "end: NoneType, not Point"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("kind", "message", "text"), MISFITS, ids=names(MISFITS))
def test_what_does_not_fit_is_refused_by_key_type_and_place(
    channel: MemoryChannel, kind: type[Any], message: Any, text: str
) -> None:
    typed = TypedChannel(channel, kind)
    for change in (typed.set, typed.send, typed.append, typed.prepend):
        with pytest.raises(TypeError, match=rf"(?s)'key'.*no {kind.__name__} \(.*{text}"):
            change("key", message)
    assert not channel.exists("key")


@pytest.mark.parametrize(
    ("kind", "found", "text"),
    [
        (Progress, 7, "int, not Progress"),
        (Item, {"name": "pen"}, "Item needs 'price'"),
        (Item, {"name": "pen", "price": 1, "colour": "green"}, "'green' is not a valid Colour"),
        (Order, {"number": -1, "items": []}, "Order: a number is not negative"),
        (Order, {"number": 1, "items": [], "path": {"a": 1}}, "path: dict, not list"),
        (Point, {"x": -1}, "greater than or equal to 0"),
        (Point, {"x": 1, "z": 1}, "z"),
        (Point, object(), "not JSON serializable"),
    ],
)
def test_what_is_found_and_does_not_fit_is_an_error_that_names_the_key(
    channel: MemoryChannel, kind: type[Any], found: Any, text: str
) -> None:
    typed = TypedChannel(channel, kind)
    channel.set("key", found)
    for look in (typed.get, typed.receive):
        with pytest.raises(TypeError, match=rf"(?s)'key'.*no {kind.__name__} \(.*{text}"):
            look("key")
    channel.set("list", [found])
    with pytest.raises(TypeError, match=r"'list\[0\]'"):
        typed.get("list")


def test_fields_with_defaults_may_be_absent_in_what_an_older_version_wrote(channel: MemoryChannel) -> None:
    channel.set("key", {"name": "pen", "price": 1})
    assert TypedChannel(channel, Item).get("key") == Item("pen", Cents(1))


def test_the_rest_is_the_channels_own(channel: MemoryChannel) -> None:
    typed = TypedChannel(channel, Item)
    other: Channel = typed
    assert typed.message_type is Item
    assert other.get("absent") is None
    assert typed.receive("absent", Item("none", Cents(0))) == Item("none", Cents(0))
    assert typed.atomic_add("n", 2) == 2
    assert typed.exists("n")
    with typed.lock("n", timeout=0):
        assert typed.keys() == ["n"]
    assert typed.delete("n")
    typed.send("key", Item("pen", Cents(1)))
    typed.clear()
    assert channel.keys() == []


def test_a_ttl_is_handed_on() -> None:
    times = [0.0]
    typed = TypedChannel(MemoryChannel(clock=lambda: times[0]), Progress)
    message: Progress = {"task": "a", "done": 1.0}
    typed.set("set", message, ttl=5)
    typed.send("sent", message, ttl=5)
    typed.append("appended", message, ttl=5)
    typed.prepend("prepended", message, 5)
    assert len(typed.keys()) == 4
    times[0] = 5.0
    assert typed.keys() == []


@pytest.mark.parametrize("kind", [dict, int, list[int], "Item", None, Item("pen", Cents(1))])
def test_other_types_declare_no_messages(channel: MemoryChannel, kind: Any) -> None:
    with pytest.raises(TypeError, match="TypedDict, a dataclass or a pydantic model"):
        TypedChannel(channel, kind)


@task(inject_context=True)
def give(context: TaskExecutionContext) -> None:
    typed = context.get_typed_channel(Item)
    assert_type(typed, TypedChannel[Item])
    typed.send("key", Item("pen", Cents(1)))


@task(inject_context=True)
def take(context: TaskExecutionContext) -> str:
    received = context.get_typed_channel(Item).receive("key")
    assert_type(received, Item | None)
    assert_type(context.get_typed_channel(Progress), TypedChannel[Progress])
    return repr(received)


def test_a_task_has_a_typed_channel() -> None:
    with workflow("typed") as wf:
        give >> take
    assert wf.execute() == repr(Item("pen", Cents(1)))


def test_dataclasses_do_without_pydantic() -> None:
    program = """
import sys
from dataclasses import dataclass
from graflow_celery.engine.typed_channel import TypedChannel
from graflow_celery.memory_backend.channel import MemoryChannel

@dataclass
class Item:
    name: str

channel = TypedChannel(MemoryChannel(), Item)
channel.send("key", Item("pen"))
assert channel.receive("key") == Item("pen")
assert "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
