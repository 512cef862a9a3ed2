"""Expressions: ``a >> b``, ``a << b``, ``a | b``, `chain`, `parallel`. Each operator returns a new value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

from graflow_celery.core.definition import current_definition
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.parts import Parts
from graflow_celery.core.policy import GroupPolicy, StrictGroupPolicy, as_policy
from graflow_celery.errors import DuplicateTaskError, EmptyGroupError, GraphCompilationError

LONGEST_GROUP_NAME = 48


class Executable(ABC):
    """A task, a chain or a parallel group: whatever the operators combine."""

    @property
    @abstractmethod
    def task_id(self) -> str:
        """The id under which results, errors and events speak of it."""

    @property
    def member_ids(self) -> tuple[str, ...]:
        """Of a group: the ids of everything inside of it."""
        return ()

    @property
    def leftmost(self) -> Executable:
        return self

    @property
    def rightmost(self) -> Executable:
        return self

    def register(self, graph: TaskGraph) -> None:
        """Puts it, what is inside of it and its inner edges into a graph. Repeating that changes nothing.

        However deep groups stand in groups, it takes no more of Python's stack.
        """
        pending = [self._registering(graph)]
        while pending:
            part = next(pending[-1], None)
            if part is None:
                pending.pop()
            else:
                pending.append(part._registering(graph))

    @abstractmethod
    def _registering(self, graph: TaskGraph) -> Iterator[Executable]:
        """Puts it into a graph; gives first, one after the other, the parts that have to be there before."""

    def __rshift__(self, other: Executable) -> SequentialTask:
        """``self >> other``: other runs after self."""
        if not isinstance(other, Executable):
            return NotImplemented
        return SequentialTask.joining(self, other)

    def __lshift__(self, other: Executable) -> SequentialTask:
        """``self << other``: self runs after other."""
        if not isinstance(other, Executable):
            return NotImplemented
        return SequentialTask.joining(other, self)

    def __or__(self, other: Executable) -> ParallelGroup:
        """``self | other``: side by side, with a barrier after both."""
        if not isinstance(other, Executable):
            return NotImplemented
        return ParallelGroup.of(self, other)

    def _attach(self) -> None:
        definition = current_definition()
        if definition is not None:
            self.register(definition.graph)


class SequentialTask(Executable):
    """``a >> b >> c``: a chain. It is no node itself; its tasks and edges are what the graph holds."""

    def __init__(self, tasks: Sequence[Executable]) -> None:
        if not tasks:
            raise GraphCompilationError("A chain needs at least one task.")
        steps: Parts[Executable] = Parts()
        for number, item in enumerate(tasks):
            if isinstance(item, SequentialTask):
                steps = steps.plus(item._steps) if number else item._steps
            else:
                steps = steps.plus((item,))
        self._steps: Parts[Executable] = steps

    @property
    def tasks(self) -> tuple[Executable, ...]:
        """Its tasks and groups, in order."""
        return tuple(self._steps)

    @classmethod
    def joining(cls, first: Executable, then: Executable) -> Self:
        """The chain of two operands. Inside of a workflow only the edge between them is new to the graph."""
        chained = cls((first, then))
        definition = current_definition()
        if definition is not None:
            for side in (first, then):
                if not isinstance(side, SequentialTask) or not definition.graph.has_node(side.leftmost.task_id):
                    side.register(definition.graph)
            definition.graph.add_edge(first.rightmost.task_id, then.leftmost.task_id)
        return chained

    @property
    def task_id(self) -> str:
        return self.leftmost.task_id

    @property
    def leftmost(self) -> Executable:
        return self._steps[0]

    @property
    def rightmost(self) -> Executable:
        return self._steps[-1]

    def _registering(self, graph: TaskGraph) -> Iterator[Executable]:
        yield from self._steps
        for source, target in pairwise(self._steps):
            graph.add_edge(source.task_id, target.task_id)

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Executable:
        return self._steps[index]

    def __iter__(self) -> Iterator[Executable]:
        return iter(self._steps)

    def __repr__(self) -> str:
        return f"SequentialTask([{' >> '.join(step.task_id for step in self._steps)}])"


class ParallelGroup(Executable):
    """Members that run side by side, and a barrier after them that a policy judges.

    A member is a task, a chain (the barrier waits for its last task) or another group. The result of a group is
    ``{member id: result}`` of the members that succeeded; a parameter named like the group receives it.
    """

    def __init__(
        self,
        tasks: Sequence[Executable],
        name: str | None = None,
        *,
        policy: str | GroupPolicy = "strict",
        timeout: float | None = None,
        batch: int | None = None,
        register_to_context: bool = True,
    ) -> None:
        self._parts: Parts[Executable] = tasks if isinstance(tasks, Parts) else Parts(tasks)
        self.timeout = checked_timeout(timeout, name or "(unnamed)")
        self.batch = checked_batch(batch, name or "(unnamed)")
        self._name = name
        self.policy: GroupPolicy = as_policy(policy)
        self.backend: str | None = None
        self.backend_config: Mapping[str, Any] = {}
        if not self._parts:
            raise EmptyGroupError(name or "(unnamed)")
        if register_to_context:
            self._attach()

    @classmethod
    def of(cls, *operands: Executable) -> ParallelGroup:
        """All operands side by side. One that is a group itself, unnamed and not yet wired, is extended, not nested."""
        definition = current_definition()
        members: Parts[Executable] = Parts()
        new: list[Executable] = []  # what is not in the graph yet, as far as is known
        policy: GroupPolicy = StrictGroupPolicy()
        timeout: float | None = None
        batch: int | None = None
        for number, operand in enumerate(operands):
            if not isinstance(operand, ParallelGroup) or not operand.is_open:
                members = members.plus((operand,))
                new.append(operand)
                continue
            members = members.plus(operand._parts) if number else operand._parts
            policy = policy if operand.policy == StrictGroupPolicy() else operand.policy
            timeout = operand.timeout if timeout is None else timeout
            batch = operand.batch if batch is None else batch
            if definition is not None and definition.graph.nodes.get(operand.task_id) is operand:
                definition.graph.remove_node(operand.task_id)
            else:
                new += operand._parts
        made = cls(members, policy=policy, timeout=timeout, batch=batch, register_to_context=False)
        if definition is not None:
            for member in new:
                member.register(definition.graph)
            definition.graph.add_node(made)
        return made

    @property
    def tasks(self) -> tuple[Executable, ...]:
        """Its members, in order."""
        return tuple(self._parts)

    @property
    def is_open(self) -> bool:
        """Whether ``|`` extends it: it has no name of its own and no edges in the workflow being written."""
        definition = current_definition()
        if self._name is not None:
            return False
        if definition is None or not definition.graph.has_node(self.task_id):
            return True
        graph = definition.graph
        return not graph.successors(self.task_id) and not graph.predecessors(self.task_id)

    @property
    def task_id(self) -> str:
        if self._name is not None:
            return self._name
        count = len(self._parts)
        if count <= LONGEST_GROUP_NAME:  # of more, the signs between them alone are longer
            joined = "|".join(member.task_id for member in self._parts)
            if len(joined) <= LONGEST_GROUP_NAME:
                return joined
        return f"{self._parts[0].task_id[:20]}|...|{self._parts[-1].task_id[:20]}({count})"

    @property
    def member_ids(self) -> tuple[str, ...]:
        inside: list[str] = []
        for member in self._parts:
            steps = member if isinstance(member, SequentialTask) else (member,)
            inside += [step.task_id for step in steps]
        return tuple(inside)

    def set_group_name(self, name: str) -> Self:
        """Names the group, in the workflow being written too. Returns the group itself."""
        definition = current_definition()
        if definition is not None and definition.graph.nodes.get(self.task_id) is self:
            definition.graph.rename_node(self.task_id, name)
        self._name = name
        return self

    def with_execution(
        self,
        backend: str | None = None,
        backend_config: Mapping[str, Any] | None = None,
        policy: str | GroupPolicy | None = None,
        timeout: float | None = None,
        batch: int | None = None,
    ) -> Self:
        """Sets how the group runs and which policy judges it. Returns the group itself.

        After ``timeout`` seconds the barrier closes: members that have not ended count as failed, the policy judges.
        ``batch``: how many members travel to the workers in one message, 1 for none together.

        ``backend`` and ``backend_config`` are accepted as graflow's scripts give them; where a group runs is decided
        by the run (``execute(backend=...)``), not by the group.
        """
        if backend is not None:
            self.backend = str(backend)
        if backend_config is not None:
            self.backend_config = {**self.backend_config, **backend_config}
        if policy is not None:
            self.policy = as_policy(policy)
        if timeout is not None:
            self.timeout = checked_timeout(timeout, self.task_id)
        if batch is not None:
            self.batch = checked_batch(batch, self.task_id)
        return self

    def _registering(self, graph: TaskGraph) -> Iterator[Executable]:
        present = graph.nodes.get(self.task_id)
        if present is self:
            return
        if present is not None:
            raise DuplicateTaskError(self.task_id)
        yield from self._parts
        graph.add_node(self)

    def __repr__(self) -> str:
        return f"ParallelGroup({list(self.member_ids)})"


def checked_timeout(timeout: float | None, group: str) -> float | None:
    """Raises GraphCompilationError unless ``timeout`` is None or a number of seconds over 0."""
    if timeout is None or (isinstance(timeout, int | float) and timeout > 0):
        return timeout
    raise GraphCompilationError(f"Parallel group '{group}': timeout={timeout!r} must be a number of seconds over 0.")


def checked_batch(batch: int | None, group: str) -> int | None:
    """Raises GraphCompilationError unless ``batch`` is None or a whole number from 1 to 1000."""
    if batch is None or (isinstance(batch, int) and 1 <= batch <= 1000):
        return batch
    raise GraphCompilationError(f"Parallel group '{group}': batch={batch!r} must be a whole number from 1 to 1000.")


def chain(*tasks: Executable) -> SequentialTask:
    """The same as ``tasks[0] >> tasks[1] >> ...``."""
    if not tasks:
        raise GraphCompilationError("chain() needs at least one task.")
    chained = SequentialTask(tasks)
    chained._attach()
    return chained


def parallel(*tasks: Executable) -> ParallelGroup:
    """The same as ``tasks[0] | tasks[1] | ...``, made in one step."""
    if len(tasks) < 2:
        raise GraphCompilationError(f"parallel() needs at least two tasks and got {len(tasks)}.")
    return ParallelGroup.of(*tasks)
