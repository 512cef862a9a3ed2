"""Retry policies: how long a failed task waits before it is tried again. Pure: chance comes as an argument."""

from __future__ import annotations

from dataclasses import dataclass

from graflow_celery.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff, as in graflow; see https://en.wikipedia.org/wiki/Exponential_backoff.

    Attributes:
        max_retries: attempts after the first one.
        initial_interval: seconds before the first retry.
        backoff_factor: by how much each wait is longer than the one before.
        max_interval: seconds that no wait exceeds.
        jitter: spread each wait over 50 to 150 % of itself: tasks that failed together don't come back together.

    Raises:
        ConfigError: a value is negative, or the factor below 1.
    """

    max_retries: int = 0
    initial_interval: float = 1.0
    backoff_factor: float = 2.0
    max_interval: float = 60.0
    jitter: bool = False

    def __post_init__(self) -> None:
        for name in ("max_retries", "initial_interval", "max_interval"):
            if getattr(self, name) < 0:
                raise ConfigError(f"RetryPolicy: {name}={getattr(self, name)} must not be negative.")
        if self.backoff_factor < 1:
            raise ConfigError(f"RetryPolicy: backoff_factor={self.backoff_factor} must be at least 1.")

    def delay(self, retries: int, chance: float = 0.5) -> float:
        """Seconds to wait after ``retries`` retries went before; ``chance`` is a number in [0, 1)."""
        if self.initial_interval == 0:
            return 0.0
        wait = min(self.initial_interval * self.backoff_factor ** min(retries, 64), self.max_interval)
        return min(wait * (0.5 + chance), self.max_interval) if self.jitter else wait
