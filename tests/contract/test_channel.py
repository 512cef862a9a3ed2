"""A channel means the same in memory and in Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from graflow_celery import Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.engine.typed_channel import TypedChannel
from graflow_celery.errors import SerializationError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import Channel
from graflow_celery.testing import wait_until
from tests.contract.conftest import Execute

BACKENDS = ["memory", pytest.param("redis", marks=pytest.mark.workers)]


class FakeClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Time:
    """The time by which a channel's keys expire: the fake clock's, or the server's, which is waited for."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.passes: Callable[[float], None] = self._advance

    def _advance(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.fixture
def now() -> Time:
    return Time(FakeClock())


@pytest.fixture(params=BACKENDS)
def channel(request: pytest.FixtureRequest, now: Time) -> Iterator[Channel]:
    if request.param == "memory":
        yield MemoryChannel(clock=now.clock)
        return
    settings = request.getfixturevalue("graflow_settings")
    runtime = Runtime(create_app(settings), settings)

    def wait(seconds: float) -> None:
        def server_time() -> float:
            whole, micro = runtime.client.time()
            return float(whole + micro / 1e6)

        end = server_time() + seconds
        wait_until(lambda: server_time() > end, description="the server's time to pass")

    now.passes = wait
    channel = runtime.channel(f"channel-{request.node.name}")
    yield channel
    channel.clear()


VALUES: list[Any] = [
    None,
    True,
    0,
    -7,
    2**53,
    2**60,
    1.5,
    1e300,
    float("inf"),
    "",
    "text ä",
    b"bytes",
    [],
    [1, [2.5, None], {"a": "b"}],
    (1, 2),
    {"k": [1]},
    {1: "one"},
    {1, 2},
    "x" * 100_000,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_what_is_set_is_got_exactly(channel: Channel, value: Any) -> None:
    channel.set("key", value)
    found = channel.get("key")
    assert found == value
    assert type(found) is type(value)


def test_absent_keys(channel: Channel) -> None:
    assert channel.get("absent") is None
    assert channel.get("absent", 7) == 7
    assert not channel.exists("absent")
    assert not channel.delete("absent")
    assert channel.keys() == []


def test_keys_delete_and_clear(channel: Channel) -> None:
    channel.set("a", 1)
    channel.set("b", None)
    assert sorted(channel.keys()) == ["a", "b"]
    assert channel.exists("b")
    assert channel.delete("a")
    assert channel.keys() == ["b"]
    channel.clear()
    assert channel.keys() == []


def test_append_and_prepend_make_and_extend_lists(channel: Channel) -> None:
    assert channel.append("list", "b") == 1
    assert channel.append("list", {"c": 1}) == 2
    assert channel.prepend("list", "a") == 3
    assert channel.get("list") == ["a", "b", {"c": 1}]
    channel.set("list", [1])
    assert channel.append("list", 2) == 2
    assert channel.get("list") == [1, 2]


def test_atomic_add_keeps_integers_and_floats(channel: Channel) -> None:
    assert channel.atomic_add("n") == 1
    assert channel.atomic_add("n", 41) == 42
    assert type(channel.get("n")) is int
    assert channel.atomic_add("n", 0.5) == 42.5
    assert channel.atomic_add("n", 0.5) == 43.0
    assert type(channel.get("n")) is float
    channel.set("n", 2**52)
    assert channel.atomic_add("n", -1) == 2**52 - 1
    channel.set("n", -0.5)
    assert channel.atomic_add("n", 1e300) == 1e300
    assert channel.atomic_add("n", 1e-7) == 1e300


@pytest.mark.parametrize("amount", [True, "1", None, float("inf"), float("nan"), 2**53])
def test_what_is_no_number_is_not_added(channel: Channel, amount: Any) -> None:
    with pytest.raises(TypeError, match="'n'"):
        channel.atomic_add("n", amount)
    assert not channel.exists("n")


@pytest.mark.parametrize(
    ("present", "amount"), [(2**53 - 1, 1), (1 - 2**53, -1), (2**53 - 1, 2**53 - 1), (1.7e308, 1e308)]
)
def test_a_sum_that_would_lose_digits_is_refused(channel: Channel, present: float, amount: float) -> None:
    channel.set("n", present)
    with pytest.raises(OverflowError, match="'n'"):
        channel.atomic_add("n", amount)
    assert channel.get("n") == present


@pytest.mark.parametrize("value", ["text", [1], True, None, 2**53])
def test_adding_to_something_else_changes_nothing(channel: Channel, value: Any) -> None:
    channel.set("key", value)
    with pytest.raises(TypeError, match="'key'"):
        channel.atomic_add("key")
    assert channel.get("key") == value


def test_appending_to_something_else_changes_nothing(channel: Channel) -> None:
    channel.set("key", "text")
    with pytest.raises(TypeError, match="'key'"):
        channel.append("key", 1)
    assert channel.get("key") == "text"


def test_threads_lose_nothing(channel: Channel) -> None:
    def work() -> None:
        for _ in range(50):
            channel.atomic_add("count")
            channel.append("list", 1)

    in_threads(8, work)
    assert channel.get("count") == 400
    assert len(channel.get("list")) == 400


def test_five_threads_that_add_a_hundred_times_each_add_five_hundred(channel: Channel) -> None:
    def work() -> None:
        for _ in range(100):
            channel.atomic_add("count")

    in_threads(5, work)
    assert channel.get("count") == 500


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("value", ["text", 7, [1, 2], {"k": 1}, "x" * 100_000], ids=lambda value: repr(value)[:20])
def test_a_key_is_there_until_its_ttl_is_over(channel: Channel, now: Time, value: Any) -> None:
    channel.set("brief", value, ttl=0.5)
    channel.set("long", value, ttl=60)
    assert channel.get("brief") == value
    assert sorted(channel.keys()) == ["brief", "long"]
    now.passes(0.5)
    assert channel.get("brief", "gone") == "gone"
    assert not channel.exists("brief")
    assert not channel.delete("brief")
    assert channel.keys() == ["long"]
    assert channel.get("long") == value


@pytest.mark.parametrize("look", ["exists", "get", "delete"])
def test_each_way_to_look_at_an_expired_key_finds_nothing(channel: Channel, now: Time, look: str) -> None:
    channel.set("brief", 1, ttl=0.2)
    now.passes(0.2)
    assert not getattr(channel, look)("brief")
    channel.set("brief", 1, ttl=0.2)
    now.passes(0.2)
    assert channel.keys() == []


def test_to_set_a_key_again_is_to_give_its_ttl_anew(channel: Channel, now: Time) -> None:
    for ttl in (60, None):
        channel.set("key", 1, ttl=0.2)
        channel.set("key", 2, ttl=ttl)
        now.passes(0.2)
        assert channel.get("key") == 2


def test_a_change_in_place_keeps_the_ttl_or_gives_a_new_one(channel: Channel, now: Time) -> None:
    channel.set("n", 1, ttl=0.5)
    assert channel.atomic_add("n") == 2
    assert channel.append("list", "b", ttl=0.5) == 1
    assert channel.prepend("list", "a") == 2
    assert channel.get("list") == ["a", "b"]
    channel.append("other", 1, ttl=0.5)
    channel.prepend("other", 0, ttl=60)
    now.passes(0.5)
    assert channel.atomic_add("n") == 1
    assert channel.append("list", "c") == 1
    assert channel.get("list") == ["c"]
    assert channel.get("other") == [0, 1]
    now.passes(0.5)
    assert sorted(channel.keys()) == ["list", "n", "other"]


@pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan"), True, "5"])
def test_a_ttl_that_is_no_time_is_refused_and_changes_nothing(channel: Channel, ttl: Any) -> None:
    for change in (channel.set, channel.append, channel.prepend):
        with pytest.raises(ValueError, match=r"'key'.*ttl"):
            change("key", 1, ttl=ttl)
    assert not channel.exists("key")


@task(inject_context=True)
def put(context: TaskExecutionContext) -> None:
    """Leaves one key that has expired when the next task begins, and that nobody looked at since."""
    channel = context.get_channel()
    channel.set("brief", "expired", ttl=0.05)
    channel.set("long", "kept", ttl=60)
    channel.append("items", 1, ttl=60)
    over = time.monotonic() + 0.2
    wait_until(lambda: time.monotonic() > over, description="the brief key to expire")


@task
def take(long: str, items: list[int], brief: str = "default") -> list[Any]:
    return [brief, long, items]


def test_a_parameter_does_not_take_an_expired_key(execute: Execute) -> None:
    with workflow("expiring") as wf:
        put >> take
    assert execute(wf) == ["default", "kept", [1]]


@pytest.mark.workers
def test_a_value_that_cannot_be_sent_is_refused_by_key_and_type(graflow_settings: Settings) -> None:
    channel = Runtime(create_app(graflow_settings), graflow_settings).channel("refusing")
    with pytest.raises(SerializationError, match=r"(?s)'gate'.*lock"):
        channel.set("gate", threading.Lock())
    assert not channel.exists("gate")


@pytest.mark.workers
@pytest.mark.parametrize("value", [{1, 2}, (1, 2), {1: 2}, 1j], ids=repr)
def test_where_json_alone_is_allowed_the_rest_is_refused_by_key_and_type(
    graflow_settings: Settings, value: Any
) -> None:
    settings = graflow_settings.model_copy(update={"serializers": ("json",)})
    channel = Runtime(create_app(settings), settings).channel("json")
    for change in (channel.set, channel.append, channel.prepend):
        with pytest.raises(SerializationError, match=rf"'key'.*'{type(value).__name__}'"):
            change("key", value)
    with pytest.raises(SerializationError, match=rf"'key'.*'{type(value).__name__}'"):
        channel.set("key", [1, value])
    assert not channel.exists("key")
    channel.set("key", [{"a": [1, None, "text", 1.5, True]}])
    assert channel.append("key", b"bytes") == 2
    channel.clear()


@dataclass
class Part:
    name: str
    size: tuple[int, int]


@dataclass
class Dated:
    parts: list[Part]
    on: date | None = None


def test_typed_messages_come_back_as_they_were(channel: Channel) -> None:
    typed = TypedChannel(channel, Dated)
    message = Dated([Part("a", (1, 2))], date(2026, 1, 2))
    typed.send("key", message, ttl=60)
    assert typed.receive("key") == message
    assert typed.append("list", message) == 1
    assert typed.get("list") == [message]
    with pytest.raises(TypeError, match=r"'key'.*no Dated"):
        typed.set("key", Part("a", (1, 2)))  # type: ignore[arg-type]
    assert typed.receive("key") == message


@pytest.mark.workers
def test_typed_messages_are_json_as_far_as_their_leaves_are(graflow_settings: Settings) -> None:
    settings = graflow_settings.model_copy(update={"serializers": ("json",)})
    typed = TypedChannel(Runtime(create_app(settings), settings).channel("typed json"), Dated)
    typed.send("key", Dated([Part("a", (1, 2))]))
    assert typed.receive("key") == Dated([Part("a", (1, 2))])
    for change in (typed.set, typed.send, typed.append, typed.prepend):
        with pytest.raises(SerializationError, match=r"'refused'.*'dict'"):
            change("refused", Dated([], date(2026, 1, 2)))
    assert typed.keys() == ["key"]
    typed.clear()
