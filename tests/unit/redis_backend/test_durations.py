"""How long code takes, as processes tell each other through a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.redis_backend.client import Client, connect
from graflow_celery.redis_backend.durations import KEPT, MOST, WEIGHT, Durations
from graflow_celery.redis_backend.keys import Keys


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with EmbeddedServer() as server:
        client = connect(server.url)
        yield client
        client.close()


@pytest.fixture
def keys() -> Keys:
    return Keys(uuid.uuid4().hex[:8])


def test_a_mean_follows_what_is_seen_slowly(client: Client, keys: Keys) -> None:
    here = Durations(client, keys)
    assert here.expected("f") is None
    here.took("f", 1.0)
    assert here.expected("f") == 1.0
    here.took("f", 2.0)
    assert here.expected("f") == pytest.approx(2.0**WEIGHT)
    for _ in range(50):
        here.took("f", 2.0)
    assert here.expected("f") == pytest.approx(2.0, abs=0.01)


def test_another_process_learns_what_was_told(client: Client, keys: Keys) -> None:
    here, there = Durations(client, keys), Durations(client, keys)
    here.took("f", 0.25)
    here.tell(["f", "g"])
    assert there.learn(["f", "g", "f"]) == {"f": 0.25, "g": None}
    assert there.expected("f") == 0.25
    assert 0 < client.ttl(keys.duration("f")) <= KEPT
    assert not client.exists(keys.duration("g")), "nothing is known of it"


def test_only_what_has_changed_is_told(client: Client, keys: Keys) -> None:
    here = Durations(client, keys)
    here.took("f", 0.1)
    here.tell(["f"])
    client.set(keys.duration("f"), "untouched")
    here.took("f", 0.11)
    here.tell(["f"])
    assert client.get(keys.duration("f")) == b"untouched"
    for _ in range(5):
        here.took("f", 1.0)
    here.tell(["f"])
    told = client.get(keys.duration("f"))
    assert told is not None
    assert float(told) == here.expected("f")


def test_what_takes_next_to_no_time_does_not_change(client: Client, keys: Keys) -> None:
    here = Durations(client, keys)
    here.took("f", 0.00001)
    here.tell(["f"])
    client.set(keys.duration("f"), "untouched")
    for _ in range(50):
        here.took("f", 0.0003)
    here.tell(["f"])
    assert client.get(keys.duration("f")) == b"untouched"


def test_a_process_remembers_so_many_at_the_most(client: Client, keys: Keys) -> None:
    here = Durations(client, keys)
    for number in range(MOST + 10):
        here.took(f"f{number}", 1.0)
    assert here.expected("f0") is None
    assert here.expected(f"f{MOST + 9}") == 1.0
    assert len(here._known) == MOST
