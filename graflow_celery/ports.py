"""What the engine needs from outside, as small protocols. Each has an adapter in memory and one on Redis or Celery."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from graflow_celery.core.commands import Command
from graflow_celery.core.events import Event
from graflow_celery.core.extend import Extension
from graflow_celery.core.plan import Plan
from graflow_celery.core.quick import quick
from graflow_celery.core.state import Applied, Leave, NodeState, RunState, Transition
from graflow_celery.errors import GraflowError

#: One line of a run's event log: ``event``, ``at`` (seconds since the epoch, by the store's clock) and what belongs to
#: the event: ``node``, ``attempt``, ``worker``, ``duration`` (seconds), ``reason``, ``count``, ``request`` (an id).
EventRecord = Mapping[str, Any]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run, of which graph. All that travels in a message besides node and attempt.

    ``graph`` is the graph's hash. Of a run that was retried it is ``HASH~3``: the attempts of its nodes are counted
    from 3 on, and what says something else dates from before the retry and changes nothing. Where a secret is set a
    signature follows, ``HASH.TAG``, by which nobody else can say which graph a run is of: see `codec.references`.
    """

    id: str
    graph: str

    @property
    def version(self) -> str:
        """The graph without its signature: ``HASH`` or ``HASH~3``."""
        return self.graph.partition(".")[0]

    @property
    def tag(self) -> str:
        return self.graph.partition(".")[2]

    @property
    def hash(self) -> str:
        return self.version.partition("~")[0]

    @property
    def first(self) -> int:
        """The number of its nodes' first attempts."""
        return int(self.version.partition("~")[2] or 1)

    def since(self, first: int) -> RunRef:
        """The run after a retry, not signed."""
        return RunRef(self.id, f"{self.hash}~{first}")


#: Runs the coroutine of an attempt to its end and returns its value, or what it raised; TaskCancelledError if it was
#: cancelled from outside.
CoroutineRunner = Callable[[Coroutine[Any, Any, Any]], tuple[Any, BaseException | None]]
Random = Callable[[], float]


class _Nothing:
    """Stands where there is no value, None being one."""

    def __repr__(self) -> str:
        return "NOTHING"

    def __reduce__(self) -> str:
        return "NOTHING"


NOTHING: Any = _Nothing()


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """What a task asked a person, and the answer once there is one. Both are JSON objects; see `engine.feedback`.

    Attributes:
        node, attempt: the activation that waits, and the attempt that an answer has to name.
        graph: the graph that the node belongs to, if it was added while the run went on.
        expired: nobody answered in the time that was given.
    """

    id: str
    node: str
    attempt: int
    request: Mapping[str, Any]
    response: Mapping[str, Any] | None = None
    graph: str = ""
    expired: bool = False


@quick
@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt brought: a value or an error, on which worker, in how many seconds.

    ``input``: what the next attempt of the same activation receives. ``feedback``: what it asked, or was answered.
    ``reported``: somebody else says so than the process that ran the attempt.
    """

    value: Any = NOTHING
    error: BaseException | None = None
    worker: str = ""
    duration: float = 0.0
    input: Any = NOTHING
    feedback: FeedbackRecord | None = None
    reported: bool = False


@quick
@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """A node as a barrier or a client sees it."""

    state: NodeState | None
    attempt: int = 0
    error: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class Begun:
    """Leave to run an attempt, with the values that the store has for the names that were asked for.

    ``input`` is the item of a mapped task's member, or what ``next_iteration`` handed on.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    leave: Leave = field(default_factory=Leave)
    input: Any = NOTHING


@quick
@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to run. ``node`` is its key; ``worker`` who runs it as people say, ``holder`` as records do."""

    run: RunRef
    plan: Plan
    node: str
    number: int
    worker: str
    holder: str = ""


#: Where a store keeps the forms that it gives to what is the same in every run.
Forms = dict[Any, str]


@quick
@dataclass(frozen=True, slots=True)
class Asked:
    """A step of a run: leave that is asked for to run an attempt.

    Attributes:
        scopes: the groups around the node. ``names``: looked up in results, then in the channel.
        reached: what leads to the attempt is in a step before this one, and may be refused: then there is no leave.
        renews: leave was given, a while ago, and the attempt was not run yet: whether that still holds.
        returns: leave was given, and the attempt will not be run here: it is queued again, as it was.
        answers: the command that is carried out with it, and leaves the outbox.
        forms: those of questions about the same attempt of the same graph.
    """

    attempt: Attempt
    scopes: tuple[str, ...]
    names: tuple[str, ...]
    reached: bool = False
    renews: bool = False
    returns: bool = False
    answers: Command | None = None
    forms: Forms | None = None


@quick
@dataclass(frozen=True, slots=True)
class Change:
    """A step of a run: a transition, and the outcome that belongs to it, in whatever form the store keeps it."""

    transition: Transition
    kept: Any


Step = Asked | Change


@dataclass(frozen=True, slots=True)
class Members:
    """Those that a group starts with, from number ``first`` on; of a mapped task those for its items.

    ``group`` is the activation key; ``graph`` the graph that it belongs to, if it was added while the run went on.
    """

    group: str
    first: int
    count: int
    graph: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that a worker has: in its process ``pid`` if it is ``running``, else received and not begun.

    ``added``: the graph that the node belongs to, if it was added while the run went on. With ``members`` it stands for
    the attempts of so many members of the group ``node``: the number of the first, and how many.
    """

    run: RunRef
    node: str
    attempt: int
    added: str = ""
    pid: int = 0
    running: bool = False
    members: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """How many attempts it stands for."""
        return 1 if self.members is None else self.members[1]


@dataclass(frozen=True, slots=True)
class Death:
    """A worker that is dead, or has hung for so long that it counts as dead.

    Attributes:
        worker: as records name it. ``name``, ``pid``: as people do.
        silence: seconds since its last beat.
        reported: its process was seen to end; otherwise its lease ran out.
        held: what it had then.
        mark: by which the store knows the beat.
    """

    worker: str
    name: str
    pid: int
    silence: float
    reported: bool
    held: tuple[Held, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as the store has it.

    Attributes:
        worker: who runs or ran it, as people name it; ``holder``: who runs it, as records do, or empty.
        started: since when it runs, or from when on it may if it is queued, in seconds since the epoch by the store's
            clock, or 0.
        duration: in seconds.
    """

    state: NodeState
    attempt: int
    worker: str
    started: float
    duration: float
    losses: int
    retries: int = 0
    cycle: int = 0
    graph: str = ""
    holder: str = ""


@dataclass(frozen=True, slots=True)
class Late:
    """What of a run is late: commands that are due, and nodes that it is time to look at, each with its record."""

    run: RunRef
    commands: Sequence[Command]
    nodes: Mapping[str, NodeReport | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a run has come to: its state, and its values by name.

    ``ttls`` are the seconds that keys of the channel have left which were given a ttl.
    """

    state: RunState
    results: Mapping[str, Any]
    errors: Mapping[str, BaseException]
    channel: Mapping[str, Any]
    inputs: Mapping[str, Any]
    feedback: Sequence[FeedbackRecord]
    ttls: Mapping[str, float] = field(default_factory=dict)


Answer = Begun | Applied | GraflowError | None


class RunStore(Protocol):
    """The truth about runs. Each method is atomic. Nodes are named by activation keys, results by node ids."""

    def begin(self, attempt: Attempt, scopes: Sequence[str], names: Sequence[str]) -> Begun | None:
        """Leave to run an attempt, or None: it is stale. ``names`` are looked up in results, then in the channel."""

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        """Carries a transition out, with the outcome that belongs to it, or refuses it as stale.

        Raises:
            SerializationError: the outcome cannot be stored; nothing was changed.
        """

    def outcomes(self, run: RunRef, nodes: Sequence[str]) -> list[NodeOutcome]:
        """How each of ``nodes`` stands, in their order."""

    def results(self, run: RunRef, nodes: Sequence[str]) -> dict[str, Any]:
        """The results that are there, by node."""

    def values(self, run: RunRef, names: Sequence[str]) -> dict[str, Any]:
        """What is there under ``names``: results, or else values of the channel."""

    def error(self, run: RunRef, node: str) -> BaseException | None:
        """The exception that a node ended with."""

    def jumps(self, run: RunRef, group: str) -> tuple[str, ...]:
        """Where members of a group jump to when its barrier closes."""

    def put_inputs(self, run: RunRef, inputs: Mapping[str, Any]) -> None:
        """Keeps what activations will receive. Raises SerializationError."""

    def input(self, run: RunRef, node: str) -> Any:
        """What was kept for an activation, or NOTHING."""

    def feedback(self, run: RunRef, ids: Sequence[str] | None = None) -> list[FeedbackRecord]:
        """What the run's tasks asked: everything, or under ``ids`` what there is of those. In no order."""

    def acknowledge(self, run: RunRef, commands: Iterable[Command]) -> None:
        """Takes commands that were carried out from the outbox."""


class SteppingStore(RunStore, Protocol):
    """A run store that takes several steps of a run at once."""

    def change(
        self,
        run: RunRef,
        transition: Transition,
        outcome: Outcome,
        holder: str | None = None,
        forms: Forms | None = None,
    ) -> Change:
        """A step that :meth:`advance` will take, with the outcome as it is now.

        Args:
            holder: it changes nothing unless this worker runs the attempt.
            forms: those of this transition, with whatever outcome.

        Raises:
            SerializationError: the outcome cannot be stored.
        """

    def value(self, change: Change) -> Any:
        """A copy of the value that a change brings."""

    def advance(self, run: RunRef, taken: Sequence[Step]) -> list[Answer]:
        """Takes steps one after the other, all in one atomic step, and says of each what :meth:`begin` or
        :meth:`commit` would: that one is refused does not keep the others from being taken. Where leave was given and
        a value cannot be read, the answer is the error."""


class CheckpointStore(Protocol):
    """Where checkpoints are kept, by name. A name has parts with ``/`` between them."""

    def save(self, name: str, data: bytes) -> str:
        """Keeps a checkpoint, whole or not at all, in place of one of that name; returns the path that leads to it."""

    def load(self, name: str) -> bytes:
        """Raises CheckpointError if there is none of that name."""

    def names(self) -> list[str]:
        """Those that are there, sorted."""


class Graphs(Protocol):
    """Where plans come from, and where those of added tasks go."""

    def plan_for(self, run: RunRef, graph: str) -> Plan:
        """The plan of the run's workflow as written (``graph`` empty) or with added tasks."""

    def add(self, run: RunRef, plan: Plan, extension: Extension) -> Plan:
        """Keeps tasks that an attempt added; the answer is ``plan`` with them.

        Raises:
            SerializationError: a function cannot be sent.
        """


class Executor(Protocol):
    """Where nodes run."""

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        """Sees to it that the commands are carried out, here or elsewhere, in ``delay`` seconds. Returns at once."""

    def share(self, run: RunRef, plan: Plan, members: Members) -> None:
        """Sends the first attempts of members that nobody has begun. That they were sent before does no harm."""


class Span(Protocol):
    """An attempt as a tracer follows it. Its methods must not raise for reasons of their own."""

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls the user's function; what it traces itself belongs to the attempt. The answer may be a coroutine."""

    def end(self, event: Event, outcome: Outcome, applied: Applied) -> None:
        """What came of it. If ``applied`` is stale, it counts for nothing."""


class Tracer(Protocol):
    """What follows runs. Its methods must not raise, nor wait for anything."""

    def begin(self, attempt: Attempt) -> Span:
        """An attempt has leave to run and is about to."""

    def ended(self, run: RunRef) -> None:
        """The run has ended, with something that this process committed."""


class Channel(Protocol):
    """The key/value space that the tasks of a run share. Every method is atomic, in every backend.

    A ``ttl`` is in seconds, more than 0; when it is over the key is absent. No key outlives its run.
    """

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        """Puts a value under ``key``, for good if no ``ttl`` is given."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def delete(self, key: str) -> bool: ...

    def exists(self, key: str) -> bool: ...

    def keys(self) -> list[str]: ...

    def clear(self) -> None: ...

    def append(self, key: str, value: Any, ttl: float | None = None) -> int:
        """Adds to the end of the list under ``key``, made if absent; returns its new length.

        A ``ttl`` is that of the whole list from now on; without one the list expires when it would have.

        Raises:
            TypeError: something else than a list is there; nothing was changed.
        """

    def prepend(self, key: str, value: Any, ttl: float | None = None) -> int:
        """As :meth:`append`, to the front."""

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        """Adds to the number under ``key``, 0 if absent; returns the sum. The key expires when it would have.

        Raises:
            TypeError: ``amount`` or what is there is no finite number, or an integer beyond 2**53 - 1.
            OverflowError: the sum would be. In each case nothing was changed.
        """

    def lock(self, key: str, timeout: float = 10.0) -> AbstractContextManager[None]:
        """Holds the lock of ``key`` for a ``with`` block: one task of the run at a time has it, on whatever worker.

        It is advisory, for a reading and a writing that belong together: the other methods do not ask for it. It is not
        reentrant. The lock of a task whose process died is free a few seconds later.

        Raises:
            ChannelLockTimeoutError: it was not free within ``timeout`` seconds.
            ChannelLockLostError: when the block is left: it was not held to its end.
        """
