"""Where an activation stands: its node, its passes, and the keys of its neighbours. Pure arithmetic on keys."""

from __future__ import annotations

from dataclasses import dataclass

from graflow_celery.core.activation import FIRST, Passes, entry_of, following, item_of, key_of, split
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.quick import quick
from graflow_celery.errors import UnknownNodeError

_OUTSIDE = (FIRST,)


@quick
@dataclass(frozen=True, slots=True)
class Place:
    """An activation in its plan. ``passes`` has one for each scope that the node is in, the outermost first."""

    plan: Plan
    spec: NodeSpec
    passes: Passes

    @classmethod
    def of(cls, plan: Plan, key: str) -> Place:
        """Raises UnknownNodeError."""
        node, passes = split(key)
        spec = plan[node]
        if not passes:
            passes = _OUTSIDE if spec.group is None else (FIRST,) * (1 + len(plan.enclosing(node)))
        return cls(plan, spec, passes)

    @property
    def key(self) -> str:
        return key_of(self.spec.id, self.passes)

    @property
    def graph(self) -> str:
        return self.plan.graph_of(self.spec.id)

    @property
    def barrier(self) -> str:
        """Of a group: under what its barrier counts arrivals, and keeps how many there will be."""
        return f"barrier:{self.key}"

    @property
    def around(self) -> Place:
        """The group that the activation is in; only of a node that is in one."""
        return Place(self.plan, self.plan[self.spec.group or ""], self.passes[:-1])

    @property
    def scopes(self) -> tuple[str, ...]:
        """The groups around it, the innermost first."""
        if self.spec.group is None:
            return ()
        enclosing = self.plan.enclosing(self.spec.id)
        return tuple(key_of(group, self.passes[: -1 - depth]) for depth, group in enumerate(enclosing))

    @property
    def weight(self) -> int:
        """What a run waits for because of it: for the ends of nodes outside of every group."""
        return int(self.spec.group is None)

    @property
    def needs(self) -> int:
        """How many ends it waits for in this pass."""
        entry = entry_of(self.passes[-1])
        return self.spec.needs if entry is None else self.plan.needs(self.spec.id, entry)

    @property
    def is_again(self) -> bool:
        """Whether it is in a pass that was entered by a jump or a cycle."""
        return self.passes != _OUTSIDE and any("~" in item for item in self.passes)

    @property
    def is_fatal(self) -> bool:
        """Whether its failure ends the run."""
        if self.spec.group is None:
            return True
        owner = self.plan[self.spec.group].owner
        return owner is not None and owner.fatal

    @property
    def last(self) -> Place:
        """The place that completes the member which this one is a part of: the end of its chain."""
        place = self
        while not place.spec.is_exit and place.spec.successors:
            place = place.beside(place.spec.successors[0])
        return place

    @property
    def home_key(self) -> str:
        """Of a member's last place: the key under which the barrier looks for its outcome."""
        return key_of(self.spec.id, (*self.passes[:-1], FIRST))

    @property
    def mirror(self) -> str | None:
        """The key under which the barrier looks for its outcome, where that is another one."""
        return self.home_key if self.spec.is_exit and self.home_key != self.key else None

    @property
    def siblings(self) -> tuple[str, str]:
        """Of a member of a mapped task: what comes before and after the item's number in the keys of all of them."""
        item = item_of(self.spec.id)
        prefix = f"{item[0] if item is not None else self.spec.id}["
        return prefix, self.key[len(self.spec.id) - 1 :]

    @property
    def members(self) -> tuple[str, str]:
        """Of a mapped task: what comes before and after the item's number in the keys of its members."""
        return f"{self.spec.id}[", f"]{key_of('', (*self.passes, FIRST))}"

    def start(self, number: int) -> str:
        """Of a group: the key of what it starts with under that number; of a mapped task, of the member for that item.

        Raises:
            UnknownNodeError: there is no such number.
        """
        if self.spec.map is None:
            if not 0 <= number < len(self.spec.entries):
                raise UnknownNodeError(f"{self.spec.id}[{number}]", self.spec.entries)
            return self.inside(self.spec.entries[number]).key
        prefix, suffix = self.members
        return f"{prefix}{number}{suffix}"

    @property
    def number(self) -> int:
        """Under which number the group around it starts with it; -1 if it does not, or not in its first pass."""
        if self.spec.group is None or self.passes[-1] != FIRST:
            return -1
        group, number = self.around.spec, self.last.spec.exit_index
        starts = group.map is not None or (0 <= number < len(group.entries) and group.entries[number] == self.spec.id)
        return number if starts else -1

    def beside(self, node: str) -> Place:
        """Another node of the same scope, in the same pass."""
        return Place(self.plan, self.plan[node], self.passes)

    def inside(self, node: str) -> Place:
        """Of a group: a node in it, in the first pass."""
        return Place(self.plan, self.plan[node], (*self.passes, FIRST))

    def jump(self, node: str) -> Place:
        """Another node of the same scope, in the pass that a jump to it begins."""
        entered = following(self.passes[-1], self.plan.number(node))
        return Place(self.plan, self.plan[node], (*self.passes[:-1], entered))


def start_of(plan: Plan) -> Place:
    return Place(plan, plan[plan.start], (FIRST,))
