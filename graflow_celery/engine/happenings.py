"""What befell a run, out of its events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from graflow_celery.engine.explanation import Happening
from graflow_celery.ports import EventRecord

#: Events that tell of something that went otherwise than it should.
TELLING = frozenset(
    {
        *("node_lost", "node_returned", "node_retried", "node_failed", "group_failed"),
        *("carried_out", "code_differs", "blobs_missing", "run_stalled", "run_waiting", "run_expired", "run_aborted"),
        *("run_failed", "run_cancelled", "run_terminated"),
    }
)


def befell(events: Sequence[EventRecord], most: int | None) -> Iterator[Happening]:
    """The last ``most`` of the events that tell of such a thing; None for all."""
    telling = list(_once_missed(event for event in events if event["event"] in TELLING))
    for event in telling if most is None else telling[-most:]:
        yield Happening(
            event["at"],
            event["event"],
            event.get("node", ""),
            event.get("attempt", 0),
            event.get("worker", ""),
            event.get("reason", ""),
        )


def _once_missed(events: Iterable[EventRecord]) -> Iterator[EventRecord]:
    """What several nodes missed at about the same time is told of once, with a reason."""
    missed: set[str] = set()
    for event in events:
        if event["event"] != "blobs_missing":
            missed.clear()
            yield event
            continue
        names = event.get("names", "")
        if names not in missed:
            missed.add(names)
            reason = f"the store had lost {event.get('what', 'content')}: blob {', '.join(names.split(','))}"
            yield {**event, "reason": reason}
