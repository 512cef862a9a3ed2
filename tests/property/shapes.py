"""Random workflows and what their tasks do: a generator, and the way to plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hypothesis import strategies as st

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.expr import Executable, ParallelGroup, SequentialTask
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import TaskWrapper, task

RETRIES = 1
#: With how many losses a task fails.
LOSSES = 2
#: Of how many passes a task has acts of its own; in later ones it succeeds, so that every run ends.
PASSES = 2
END = "end"


@dataclass(frozen=True)
class Task:
    id: str


@dataclass(frozen=True)
class Mapped:
    """``size`` items, ``window`` of them at the same time."""

    id: str
    size: int
    window: int | None
    policy: str


@dataclass(frozen=True)
class Group:
    id: str
    policy: str
    members: tuple[Chain, ...]
    timeout: float | None = None


Shape = Task | Mapped | Group
Chain = tuple[Shape, ...]


@dataclass(frozen=True)
class Act:
    """What one run of a task's code does. All but ``iterate``, ``ask``, ``lose`` and ``fail`` end its activation.

    ``goto``: where a ``jump`` leads; ``added``: what an ``add`` adds, ``leaves``: in place of the task's successors.
    """

    kind: Literal["succeed", "fail", "iterate", "ask", "lose", "jump", "add"]
    goto: tuple[str, ...] = ()
    added: tuple[Chain, ...] = ()
    leaves: bool = False


@dataclass
class Workflow:
    """A graph of shapes outside of groups. ``acts[task, pass]`` is what the task does there, one act after the other.

    ``edges`` lead forward; ``loops`` back, each to a node that every way to its source leads through.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    edges: dict[str, list[str]] = field(default_factory=dict)
    loops: list[tuple[str, str]] = field(default_factory=list)
    acts: dict[tuple[str, int], list[Act]] = field(default_factory=dict)
    has_timeouts: bool = False


class _Maker:
    """Draws one workflow. ``fails``: how much more often than another act a failure comes."""

    def __init__(self, draw: st.DrawFn, timeouts: bool) -> None:
        self.draw = draw
        self.timeouts = timeouts
        self.made = Workflow()
        self.count = 0
        self.fails = draw(st.sampled_from([0, 1, 4]))

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def shape(self, depth: int) -> Shape:
        kind = self.draw(st.sampled_from("ttgm" if depth else "tttm"))
        if kind == "t":
            return Task(self.name("t"))
        policy = self.draw(st.sampled_from(["strict", "best_effort"]))
        if kind == "m":
            window = self.draw(st.sampled_from([None, 1, 2]))
            return Mapped(self.name("m"), self.draw(st.integers(0, 4)), window, policy)
        members = tuple(self.chain(depth - 1) for _ in range(self.draw(st.integers(1, 3))))
        timeout = 5.0 if self.timeouts and self.draw(st.booleans()) else None
        self.made.has_timeouts |= timeout is not None
        return Group(self.name("g"), policy, members, timeout)

    def chain(self, depth: int) -> Chain:
        return tuple(self.shape(depth) for _ in range(self.draw(st.sampled_from([1, 1, 2, 3]))))

    def workflow(self) -> Workflow:
        made = self.made
        shapes: list[Shape] = [Task("start"), *(self.shape(2) for _ in range(self.draw(st.integers(1, 5))))]
        ids = [shape.id for shape in shapes]
        made.shapes = {shape.id: shape for shape in [*shapes, Task(END)]}
        made.edges = {name: [] for name in made.shapes}
        for number, name in enumerate(ids[1:], 1):
            for source in self.draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3)):
                made.edges[ids[source]].append(name)
        last = ids[-1] if self.draw(st.booleans()) else "start"
        made.edges[last].append(END)
        self.loops(ids)
        for shape in made.shapes.values():
            if shape.id != END:
                self.acts(shape, (), ids, depth=2)
        return made

    def loops(self, ids: list[str]) -> None:
        for source in ids:
            if isinstance(self.made.shapes[source], Task) and self.draw(st.integers(0, 5)) == 0:
                back = [name for name in ids[: ids.index(source) + 1] if self.dominates(name, source)]
                self.made.loops.append((source, self.draw(st.sampled_from(back))))

    def dominates(self, name: str, node: str) -> bool:
        """Whether every way from the start to ``node`` leads through ``name``."""
        if name in ("start", node):
            return True
        seen, stack = {"start"}, ["start"]
        while stack:
            for follower in self.made.edges[stack.pop()]:
                if follower not in seen and follower != name:
                    seen.add(follower)
                    stack.append(follower)
        return node not in seen

    def acts(self, shape: Shape, beside: tuple[str, ...], outside: list[str], depth: int) -> None:
        """Gives every task of a shape something to do. ``beside`` are the ids of its chain, to which it may jump."""
        if isinstance(shape, Group):
            for member in shape.members:
                for step in member:
                    self.acts(step, tuple(item.id for item in member), [*outside, *beside], depth)
            return
        tasks = [f"{shape.id}[{index}]" for index in range(shape.size)] if isinstance(shape, Mapped) else [shape.id]
        near = () if isinstance(shape, Mapped) else beside
        for name in tasks:
            for number in range(PASSES):
                if self.draw(st.integers(0, 2)) == 0:
                    self.made.acts[name, number] = self.script([*outside, *near], near, depth)

    def script(self, targets: list[str], near: tuple[str, ...], depth: int) -> list[Act]:
        """What a task does, one act after the other; half of its jumps stay in its own member."""
        kinds = st.sampled_from(["iterate", "ask", "lose", *["fail"] * self.fails])
        acts = [Act(kind) for kind in self.draw(st.lists(kinds, max_size=3))]  # type: ignore[arg-type]
        ending = self.draw(st.sampled_from(["succeed", "jump", "jump", "add" if depth else "jump"]))
        goto: tuple[str, ...] = ()
        if ending == "jump" or (ending == "add" and self.draw(st.integers(0, 3)) == 0):
            stays = self.draw(st.booleans())
            chosen = list(near) if near and stays else targets
            goto = tuple(self.draw(st.lists(st.sampled_from(chosen), min_size=1, max_size=2, unique=True)))
        added: tuple[Chain, ...] = ()
        if ending == "add":
            added = tuple(self.chain(1) for _ in range(self.draw(st.integers(1, 2))))
            for member in added:
                for step in member:
                    outer = [name for name in self.made.shapes if name != END]
                    self.acts(step, tuple(item.id for item in member), outer, depth - 1)
        return [*acts, Act(ending, goto, added, bool(added) and self.draw(st.booleans()))]  # type: ignore[arg-type]


@st.composite
def workflows(draw: st.DrawFn, timeouts: bool = False) -> Workflow:
    return _Maker(draw, timeouts).workflow()


def expression(shape: Shape) -> Executable:
    match shape:
        case Task(name):
            return _task(name)
        case Mapped(name, _, window, policy):
            return _task(name).map(over="items", max_parallel=window).with_execution(policy=policy)
        case Group(name, policy, members, timeout):
            return ParallelGroup([chained(member) for member in members], name=name, policy=policy, timeout=timeout)


def chained(member: Chain) -> Executable:
    return SequentialTask([expression(step) for step in member])


def build(workflow: Workflow) -> Plan:
    """The plan of a workflow, by way of the DSL."""
    definition = WorkflowDefinition("random")
    with definition:
        built = {name: expression(shape) for name, shape in workflow.shapes.items()}
        for expression_ in built.values():
            definition.add(expression_)
        for source, targets in workflow.edges.items():
            for target in targets:
                built[source] >> built[target]
        for source, target in workflow.loops:
            built[source] >> built[target]
    return lower(definition.graph, "random", "start")


def _task(name: str) -> TaskWrapper:
    return task(name, max_retries=RETRIES, max_losses=LOSSES)(_body)


def _body(item: object = None) -> None: ...
