"""A graph as it was written, its functions still in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graflow_celery.core.expr import Executable
from graflow_celery.core.plan import Plan


@dataclass(frozen=True, slots=True)
class WrittenGraph:
    """A plan and the expressions that its nodes were made of, by node id. Of added tasks: the plan of these alone."""

    plan: Plan
    tasks: Mapping[str, Executable]
