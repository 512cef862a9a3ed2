"""Which attempts workers have, as their last beats tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graflow_celery.core.place import Place
from graflow_celery.ports import Held


class Holding:
    """What is held together, and by whom. Of attempts that are named in several places, any of them is told.

    Args:
        held: what each worker has, by its name.
    """

    def __init__(self, held: Mapping[str, Iterable[Held]]) -> None:
        self._single: dict[tuple[str, str, int], str] = {}
        self._members: dict[tuple[str, str, int], list[tuple[int, int, str]]] = {}
        for worker, items in held.items():
            for item in items:
                key = (item.run.id, item.node, item.attempt)
                if item.members is None:
                    self._single[key] = worker
                else:
                    first, count = item.members
                    self._members.setdefault(key, []).append((first, first + count, worker))

    def worker(self, run: str, place: Place, attempt: int) -> str | None:
        """Who has an attempt; None if nobody does."""
        found = self._single.get((run, place.key, attempt))
        if found is not None or not self._members or place.spec.group is None:
            return found
        ranges = self._members.get((run, place.around.key, attempt))
        if not ranges:
            return None
        number = place.number
        return next((worker for first, end, worker in ranges if first <= number < end), None)

    def has(self, run: str, place: Place, attempt: int) -> bool:
        return self.worker(run, place, attempt) is not None
