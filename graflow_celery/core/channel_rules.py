"""What a channel takes, in memory as in Redis: numbers that can be added to, times to live; and how it refuses."""

from __future__ import annotations

import math

#: Redis adds with the numbers of Lua, which are exact up to here.
LARGEST_INTEGER = 2**53 - 1


def is_number(value: object) -> bool:
    """Whether it can be added to without losing digits: a finite float, or an integer within 2**53 - 1."""
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is int and abs(value) <= LARGEST_INTEGER


def require_amount(key: str, amount: object) -> None:
    """Raises TypeError unless ``amount`` can be added."""
    if not is_number(amount):
        raise TypeError(
            f"Channel key '{key}': atomic_add takes a finite number up to {LARGEST_INTEGER}, not {amount!r}."
        )


def require_ttl(key: str, ttl: float | None) -> None:
    """Raises ValueError unless ``ttl`` is None or a time that passes."""
    if ttl is not None and not (type(ttl) in (int, float) and 0 < ttl < math.inf):
        raise ValueError(f"Channel key '{key}': ttl takes seconds, more than 0, not {ttl!r}. None: it does not expire.")


def no_number(key: str) -> TypeError:
    """The error for adding to something else."""
    return TypeError(f"Channel key '{key}' does not hold a number that can be added to: nothing was added.")


def no_list(key: str) -> TypeError:
    """The error for extending something else."""
    return TypeError(f"Channel key '{key}' does not hold a list: nothing was added.")


def too_large(key: str) -> OverflowError:
    """The error for a sum that would lose digits."""
    return OverflowError(f"Channel key '{key}': the sum would be beyond {LARGEST_INTEGER}: nothing was added.")
