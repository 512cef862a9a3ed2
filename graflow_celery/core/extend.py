"""Tasks that are added while a run goes on: from expressions to the nodes that extend its plan."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graflow_celery.core.activation import key_of
from graflow_celery.core.expr import Executable, ParallelGroup
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.lower import lower
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Owner, Plan
from graflow_celery.errors import DuplicateTaskError


@dataclass(frozen=True)
class Extension:
    """Tasks that an attempt added: one parallel group outside of all others, which the attempt's node waits for.

    Attributes:
        plan: the group and what is in it.
        tasks: the expressions by node id, with their functions.
        key: the group's activation, a pass of its own: the same task may be added again and again.
    """

    plan: Plan
    tasks: dict[str, Executable]
    key: str


def extend(place: Place, attempt: int, added: Sequence[Executable], leaves: bool) -> Extension:
    """Puts ``added`` side by side into a group that belongs to an attempt of ``place``.

    Raises:
        DuplicateTaskError: what was added has a part that the workflow has already, or two parts of one id.
        GraphCompilationError: it cannot run as written.
    """
    name = f"{place.spec.id}>{zlib.crc32(f'{place.key} {attempt}'.encode()):x}"
    graph = TaskGraph()
    group = ParallelGroup(added, name=name, register_to_context=False)
    group.register(graph)
    plan = lower(graph, place.plan.name, name)
    for node in plan.nodes:
        if node in place.plan.nodes:
            raise DuplicateTaskError(node)
    owner = Owner(place.key, attempt + 1, place.graph, place.is_fatal, leaves)
    nodes = {**plan.nodes, name: replace(plan[name], owner=owner)}
    tasks = {node: found for node in nodes if isinstance(found := graph.get_node(node), Executable)}
    token = f"x{zlib.crc32(f'{attempt} {place.key}'.encode()):x}"
    return Extension(Plan(plan.name, name, nodes), tasks, key_of(name, (token,)))
