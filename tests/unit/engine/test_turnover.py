"""Up to when the messages of a queue have left it, as counts of receivers and looks at the queue tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graflow_celery.engine.turnover import Turnover


class Broker:
    """One queue, and workers that have beaten ``age`` seconds ago at the latest."""

    def __init__(self) -> None:
        self.depth: int | None = 0
        self.count = 0
        self.age: float | None = 0.5
        self.turnover = Turnover(lambda queue: self.depth, self)

    def received(self, queues: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(queues, self.count)

    def oldest_beat(self) -> float | None:
        return self.age

    def up_to(self, now: float) -> float:
        return self.turnover.up_to("q", now)


def test_an_empty_queue_has_been_left_when_every_worker_has_beaten_since() -> None:
    broker = Broker()
    assert broker.up_to(10.0) == 0.0
    assert broker.up_to(10.5) == 0.0, "the beat was at 10.0, and may have been before the look"
    assert broker.up_to(10.6) == 10.0


def test_what_waited_has_left_when_as_many_were_received_as_waited() -> None:
    broker = Broker()
    broker.depth, broker.count = 3, 100
    broker.up_to(10.0)
    broker.count = 102  # two of them before the look, for all that is known
    assert broker.up_to(11.0) == 0.0
    broker.count = 104
    assert broker.up_to(12.0) == 0.0
    broker.count = 105
    assert broker.up_to(13.0) == 10.0


def test_it_goes_on_looking() -> None:
    broker = Broker()
    assert [broker.up_to(float(now)) for now in range(10, 15)] == [0.0, 10.0, 11.0, 12.0, 13.0]


def test_it_goes_on_looking_where_much_is_received() -> None:
    broker = Broker()
    found = []
    for now in range(10, 15):
        found.append(broker.up_to(float(now)))
        broker.count += 100
    assert found == [0.0, 10.0, 11.0, 12.0, 13.0]


def test_a_queue_that_was_purged_was_left() -> None:
    broker = Broker()
    broker.depth = 500
    broker.up_to(10.0)
    broker.up_to(11.0)
    broker.depth = 0
    assert broker.up_to(12.0) == 0.0
    broker.up_to(13.0)
    assert broker.up_to(14.0) >= 12.0


def test_a_queue_that_grows_is_left_by_what_waited_first() -> None:
    broker = Broker()
    broker.depth = 2
    broker.up_to(10.0)
    for now in (11.0, 12.0, 13.0):
        broker.depth += 100
        assert broker.up_to(now) == 0.0
    broker.count = 2
    assert broker.up_to(14.0) == 10.0


def test_counts_that_began_anew_are_no_obstacle() -> None:
    broker = Broker()
    broker.count, broker.depth = 1000, 1
    broker.up_to(10.0)
    broker.up_to(11.0)
    broker.count, broker.depth = 0, 0
    broker.up_to(12.0)
    assert broker.up_to(13.0) > 0.0


def test_nothing_is_known_without_workers_or_without_the_broker() -> None:
    broker = Broker()
    broker.age = None
    assert [broker.up_to(float(now)) for now in range(10, 13)] == [0.0, 0.0, 0.0]
    broker.age = 0.5
    assert broker.up_to(13.0) == 10.0
    silent = Broker()
    silent.depth = None
    assert [silent.up_to(float(now)) for now in range(10, 13)] == [0.0, 0.0, 0.0]


def test_queues_are_told_apart() -> None:
    broker = Broker()
    broker.up_to(10.0)
    assert broker.turnover.up_to("other", 11.0) == 0.0
    assert broker.up_to(11.0) == 10.0
