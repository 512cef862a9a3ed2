"""Leases and deaths, as a real server keeps them. Beats are made old by moving them back, by the server's clock."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import Death, Held, RunRef
from graflow_celery.redis_backend.client import Client, Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import SAMPLE, Liveness, WorkerLease, name_of, worker_id
from graflow_celery.testing import wait_until

LEASE = 3.0
HELD = (Held(RunRef("r1", "g1"), "a", 2, "x1", 42, True), Held(RunRef("r2", "g2"), "b~1", 1))
WORKER = WorkerLease("celery@one", ("q1", "q2"), 11, 4, "prefork", "5.7", "boot1", HELD)
OTHER = replace(WORKER, name="celery@two", queues=("q3",), held=())


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with EmbeddedServer() as server:
        client = connect(server.url)
        yield client
        client.close()


@pytest.fixture
def liveness(client: Client, monkeypatch: pytest.MonkeyPatch) -> Liveness:
    """With keys of its own. That the server was just started is of no account but where a test says so."""
    made = Liveness(client, Scripts(client), Keys(uuid.uuid4().hex[:8]), LEASE)
    monkeypatch.setattr(made, "_restarted", lambda: False)
    return made


def now(client: Client) -> int:
    seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)


def age(liveness: Liveness, worker: WorkerLease, seconds: float) -> None:
    """Has the worker's last beat lie so far back."""
    client = liveness._client
    client.zadd(liveness._keys.beats, {worker.id: now(client) - int(seconds * 1000)})


def look(liveness: Liveness, name: str = "monitor") -> list[Death]:
    assert liveness.lead(name, 5.0)
    return liveness.deaths()


def no_look_for(liveness: Liveness, seconds: float) -> None:
    """Has the last look of a monitor lie so far back."""
    client = liveness._client
    client.hset(liveness._keys.ticks, "at", now(client) - int(seconds * 1000))


# ------------------------------------------------------------------------------------ beats


def test_a_lease_comes_back_as_it_was_told(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    [found] = liveness.workers()
    assert replace(found, age=0.0) == WORKER
    assert 0 <= found.age < 2
    assert found.id == "celery@one#boot1" == worker_id("celery@one", "boot1")
    assert name_of(found.id) == "celery@one"
    assert list(liveness.living([WORKER.id, "nobody#1"])) == list(liveness.living()) == [WORKER.id]
    assert liveness.living([]) == {}


def test_a_beat_takes_one_round_trip(liveness: Liveness, client: Client) -> None:
    liveness.beat(WORKER)
    before = client.info("commandstats")
    liveness.beat(WORKER, {"q1": 2})
    after = client.info("commandstats")
    calls = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    asked = {name.partition("_")[2] for name, count in calls.items() if count and not name.startswith("cmdstat_info")}
    assert calls["cmdstat_evalsha"] == 1
    assert asked <= {"evalsha", "time", "zadd", "hset", "hincrby", "zrem", "exists", "ping"}, asked


def test_what_was_received_is_added_up_over_all_workers(liveness: Liveness) -> None:
    liveness.beat(WORKER, {"q1": 2, "q2": 1})
    liveness.beat(OTHER, {"q1": 3})
    liveness.beat(WORKER)
    assert liveness.received(["q1", "q2", "q9"]) == {"q1": 5, "q2": 1, "q9": 0}
    assert liveness.received([]) == {}


def test_a_beat_says_whether_a_monitor_leads(liveness: Liveness) -> None:
    assert not liveness.beat(WORKER).has_leader
    liveness.lead("monitor", 5.0)
    assert liveness.beat(WORKER).has_leader


def test_a_worker_that_leaves_is_gone_and_not_dead(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    liveness.leave(WORKER.id)
    assert liveness.workers() == []
    assert liveness.living() == {}
    assert look(liveness) == []
    assert not liveness.report(WORKER.id)


def test_the_oldest_beat_is_the_one_that_counts_are_sure_to_cover(liveness: Liveness) -> None:
    assert liveness.oldest_beat() is None
    liveness.beat(WORKER)
    liveness.beat(OTHER)
    age(liveness, OTHER, 2.0)
    oldest = liveness.oldest_beat()
    assert oldest is not None
    assert 2.0 <= oldest < 4.0
    liveness.report(OTHER.id)
    again = liveness.oldest_beat()
    assert again is not None
    assert again < 2.0


def test_queues_that_nobody_serves(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    assert liveness.unserved(["q1", "q3"]) == ["q3"]
    age(liveness, WORKER, LEASE + 0.1)
    assert liveness.unserved(["q1", "q3"]) == ["q1", "q3"]


def test_of_many_workers_a_few_are_looked_at_and_all_where_these_do_not_do(liveness: Liveness) -> None:
    for number in range(3 * SAMPLE):
        liveness.beat(replace(WORKER, name=f"w{number}", queues=("many",), concurrency=4))
    liveness.beat(replace(WORKER, name="rare", queues=("rare",), concurrency=4))
    asked = liveness._client.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0)
    assert liveness.unserved(["many"]) == []
    assert liveness.processes() == 4 * (3 * SAMPLE + 1)
    assert liveness._client.info("commandstats").get("cmdstat_hgetall", {}).get("calls", 0) == asked
    assert liveness.unserved(["many", "rare", "none"]) == ["none"]


# ------------------------------------------------------------------------------------ deaths


def test_a_lease_runs_out_by_the_servers_clock(client: Client) -> None:
    brief = Liveness(client, Scripts(client), Keys(uuid.uuid4().hex[:8]), 0.2)
    brief._restarted = lambda: False  # type: ignore[method-assign]
    brief.beat(WORKER)
    assert look(brief) == []
    assert brief.next_expiry is not None
    assert 0 < brief.next_expiry <= 0.2
    wait_until(lambda: look(brief), description="the lease to run out")
    assert brief.workers() == []


def test_a_death_tells_who_and_what_it_had(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    liveness.beat(OTHER)
    age(liveness, WORKER, LEASE + 1)
    [death] = look(liveness)
    assert (death.worker, death.name, death.pid) == (WORKER.id, "celery@one", 11)
    assert (death.reported, death.held) == (False, HELD)
    assert LEASE + 1 <= death.silence < LEASE + 3
    assert sorted(liveness.living()) == sorted([WORKER.id, OTHER.id]), "until it is buried"
    assert [lease.id for lease in liveness.workers()] == [OTHER.id]


def test_deaths_are_told_until_they_are_buried(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    age(liveness, WORKER, LEASE + 1)
    [death] = look(liveness)
    [again] = look(liveness)
    assert replace(again, silence=death.silence) == death
    assert liveness.bury(death)
    assert look(liveness) == []
    assert liveness.living() == {}
    assert not liveness.bury(death), "it is not there any more"


def test_one_that_beats_after_it_was_declared_dead_is_told_and_not_buried(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    age(liveness, WORKER, LEASE + 1)
    [death] = look(liveness)
    late = liveness.beat(WORKER)
    assert late.declared
    assert not liveness.bury(death)
    assert [lease.id for lease in liveness.workers()] == [WORKER.id]
    assert not liveness.beat(WORKER).declared, "it is told once"


def test_one_that_beats_after_it_was_buried_is_told_too(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    age(liveness, WORKER, LEASE + 1)
    assert liveness.bury(look(liveness)[0])
    assert liveness.beat(WORKER).declared
    assert look(liveness) == []


def test_a_death_that_is_reported_is_known_at_once_and_rings_the_bell(liveness: Liveness, client: Client) -> None:
    liveness.beat(WORKER)
    assert liveness.report(WORKER.id)
    assert liveness.report(WORKER.id), "by several who saw it"
    [death] = look(liveness)
    assert death.reported
    assert 0 <= death.silence < 2
    assert liveness.living() == {}
    assert [fields[b"worker"].decode() for _, fields in client.xrange(liveness._keys.bell)] == [WORKER.id] * 2
    assert liveness.bury(death)
    assert not liveness.report(WORKER.id), "it is buried"


def test_one_that_was_reported_and_beats_lives(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    liveness.report(WORKER.id)
    [death] = look(liveness)
    assert liveness.beat(WORKER).declared
    assert not liveness.bury(death)
    assert look(liveness) == []


def test_of_a_worker_whose_lease_is_lost_the_name_is_known(liveness: Liveness, client: Client) -> None:
    liveness.beat(WORKER)
    client.hdel(liveness._keys.leases, WORKER.id)
    age(liveness, WORKER, LEASE + 1)
    [death] = look(liveness)
    assert (death.name, death.pid, death.held) == ("celery@one", 0, ())
    assert liveness.workers() == []
    assert liveness.living() == {}


def test_old_declarations_are_dropped(liveness: Liveness, client: Client) -> None:
    client.zadd(liveness._keys.declared, {"long ago#1": now(client) - 86_500_000})
    liveness.beat(WORKER)
    age(liveness, WORKER, LEASE + 1)
    look(liveness)
    assert client.zrange(liveness._keys.declared, 0, -1) == [WORKER.id.encode()]


# ------------------------------------------------------------------------------------ the store was away


def test_nobody_is_declared_dead_just_after_nobody_had_looked_for_a_while(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    look(liveness)
    age(liveness, WORKER, 10)
    no_look_for(liveness, LEASE + 1)
    assert look(liveness) == []
    assert list(liveness.living()) == [WORKER.id], "its lease proves nothing"
    assert liveness.next_expiry is not None
    assert LEASE - 1 < liveness.next_expiry <= LEASE, "when it is worth while to look again"
    assert look(liveness) == [], "the time lasts, whoever looks"


def test_a_short_absence_of_monitors_is_none(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    look(liveness)
    age(liveness, WORKER, 10)
    no_look_for(liveness, LEASE - 1)
    assert len(look(liveness)) == 1


def test_that_time_is_over_after_a_lease(liveness: Liveness, client: Client) -> None:
    liveness.beat(WORKER)
    look(liveness)
    no_look_for(liveness, LEASE + 1)
    age(liveness, WORKER, 10)
    assert look(liveness) == []
    client.hset(liveness._keys.ticks, "mercy", now(client) - 1)
    assert len(look(liveness)) == 1


def test_a_death_that_was_reported_counts_all_the_same(liveness: Liveness, client: Client) -> None:
    liveness.beat(WORKER)
    liveness.beat(OTHER)
    look(liveness)
    age(liveness, OTHER, 10)
    no_look_for(liveness, LEASE + 1)
    liveness.report(WORKER.id)
    assert liveness.lead("monitor", 5.0)
    assert liveness.next_expiry == 0.0, "there is something to do now"
    [death] = liveness.deaths()
    assert death.worker == WORKER.id


def test_nobody_is_declared_dead_by_a_server_that_was_just_started(client: Client) -> None:
    with EmbeddedServer() as fresh:
        other = connect(fresh.url)
        made = Liveness(other, Scripts(other), Keys("fresh"), 3600.0)
        made.beat(WORKER)
        age(made, WORKER, 4000)
        assert look(made) == []
        assert made.next_expiry is None, "there is no hurry"
        made.report(WORKER.id)
        assert len(look(made)) == 1
        other.close()


# ------------------------------------------------------------------------------------ who leads


def test_one_monitor_leads_at_a_time(liveness: Liveness) -> None:
    assert liveness.leader() is None
    assert liveness.lead("one", 5.0)
    assert not liveness.lead("two", 5.0)
    assert liveness.lead("one", 5.0)
    assert liveness.leader() == "one"


def test_the_lease_of_a_monitor_runs_out(liveness: Liveness) -> None:
    assert liveness.lead("one", 0.05)
    wait_until(lambda: liveness.lead("two", 5.0), description="the lease of 'one' to run out")
    assert liveness.leader() == "two"


def test_only_its_holder_gives_the_lease_up(liveness: Liveness) -> None:
    liveness.lead("one", 5.0)
    liveness.resign("two")
    assert liveness.leader() == "one"
    liveness.resign("one")
    assert liveness.leader() is None
    assert liveness.lead("two", 5.0)


def test_a_worker_that_dies_leads_no_more(liveness: Liveness) -> None:
    liveness.beat(WORKER)
    liveness.beat(OTHER)
    liveness.lead(WORKER.id, 5.0)
    liveness.report(OTHER.id)
    assert liveness.leader() == WORKER.id
    liveness.report(WORKER.id)
    assert liveness.leader() is None


def test_no_key_of_workers_lives_for_ever(liveness: Liveness, client: Client) -> None:
    liveness.beat(WORKER, {"q1": 1})
    liveness.beat(OTHER)
    age(liveness, OTHER, 10)
    look(liveness)
    liveness.report(WORKER.id)
    look(liveness)
    keys = client.keys(f"{liveness._keys.beats.partition('{')[0]}*")
    assert len(keys) >= 6
    lasting = {key.decode().rpartition(":")[2] for key in keys if client.ttl(key) < 0}
    assert lasting <= {"declared"}, "a key that appears with a look lives on from the next one"
    look(liveness)
    assert all(client.ttl(key) > 0 for key in keys if client.exists(key))
