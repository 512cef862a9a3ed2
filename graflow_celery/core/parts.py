"""Sequences that never change, and of which longer ones are made without a copy: what chains and groups consist of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Parts(Sequence[T], Generic[T]):
    """As a tuple. One that is made of another with :meth:`plus` shares the other's list, which only grows at its end:
    so a group of n members that a loop writes with ``|`` costs n steps, and not n * n.
    """

    __slots__ = ("_count", "_items", "_tip")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._set(list(items))

    def _set(self, items: list[T]) -> None:
        self._items = items
        self._count = len(items)
        self._tip = [items]  # for the first that makes a longer one; the others copy

    def plus(self, more: Iterable[T]) -> Parts[T]:
        """These, and ``more`` after them."""
        try:
            items = self._tip.pop()  # one step: of two threads one gets it
        except IndexError:
            items = self._items[: self._count]
        items.extend(more)
        grown = Parts[T].__new__(Parts)
        grown._set(items)
        return grown

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...

    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self._items[: self._count])[index]
        return self._items[range(self._count)[index]]

    def __iter__(self) -> Iterator[T]:
        return islice(self._items, self._count)  # ends there, though the list may grow meanwhile

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[type[Parts[T]], tuple[tuple[T, ...]]]:
        return Parts, (tuple(self),)
