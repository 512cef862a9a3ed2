"""A channel means the same in memory and in Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.errors import SerializationError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import Channel


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.workers)])
def channel(request: pytest.FixtureRequest) -> Iterator[Channel]:
    if request.param == "memory":
        yield MemoryChannel()
        return
    settings = request.getfixturevalue("graflow_settings")
    channel = Runtime(create_app(settings), settings).channel(f"channel-{request.node.name}")
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


@pytest.mark.parametrize("value", ["text", [1], True, None])
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

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert channel.get("count") == 400
    assert len(channel.get("list")) == 400


def test_a_value_that_cannot_be_sent_is_refused_by_key_and_type(graflow_settings: Any) -> None:
    settings = graflow_settings
    channel = Runtime(create_app(settings), settings).channel("refusing")
    with pytest.raises(SerializationError, match=r"(?s)'gate'.*lock"):
        channel.set("gate", threading.Lock())
    assert not channel.exists("gate")
