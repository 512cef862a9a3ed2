"""What a run must come to, whatever the order of its events. It knows no counters, no attempts, no keys and no plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.property.shapes import END, LOSSES, PASSES, RETRIES, Act, Chain, Group, Mapped, Shape, Task, Workflow


@dataclass
class Expected:
    """How often each task's code runs and which nodes are skipped how often: both only if the run does not fail."""

    ran: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    fails: bool = False


@dataclass
class _End:
    """How an activation ended: where it jumps to, and whether it leaves its successors out."""

    ok: bool
    jumps: set[str] = field(default_factory=set)
    leaves: bool = False


def model(workflow: Workflow) -> Expected:
    return _Model(workflow).run()


class _Model:
    def __init__(self, workflow: Workflow) -> None:
        self.workflow = workflow
        self.expected = Expected()

    def run(self) -> Expected:
        todo = [(0, "start")]
        seen = set(todo)
        while todo:
            number, entry = todo.pop()
            for target in self.one_pass(number, entry):
                if (number + 1, target) not in seen:
                    seen.add((number + 1, target))
                    todo.append((number + 1, target))
        return self.expected

    def one_pass(self, number: int, entry: str) -> set[str]:
        """Runs what is reached from ``entry``; returns where the next pass begins."""
        edges, live, reached, jumps = self.workflow.edges, {entry}, {entry}, set()
        for node, shape in self.workflow.shapes.items():  # each after those that lead to it
            if node not in reached:
                continue
            reached |= set(edges[node])
            if node not in live:
                self.expected.skipped[node] += 1
                continue
            end = self.end_of(shape, number, fatal=True)
            if not end.ok:
                self.expected.fails = True
                continue
            jumps |= end.jumps
            if not end.jumps and not end.leaves:
                live |= set(edges[node])
                jumps |= {target for source, target in self.workflow.loops if source == node}
        return jumps

    def end_of(self, shape: Shape, number: int, fatal: bool = False) -> _End:
        match shape:
            case Task(name):
                return self.task(name, number, fatal)
            case Mapped(name, size, _, policy):
                return self.judge([self.task(f"{name}[{index}]", number) for index in range(size)], policy)
            case Group(_, policy, members):
                return self.judge([self.chain(member, number) for member in members], policy)

    def judge(self, ends: list[_End], policy: str) -> _End:
        ok = policy == "best_effort" or all(end.ok for end in ends)
        return _End(ok, {target for end in ends for target in end.jumps} if ok else set())

    def chain(self, member: Chain, number: int, fatal: bool = False) -> _End:
        ids = [step.id for step in member]
        far: set[str] = set()
        index = 0
        while index < len(member):
            end = self.end_of(member[index], number, fatal)
            if not end.ok:
                self.expected.fails |= fatal
                self.expected.skipped.update(ids[index + 1 :])
                return _End(False, far)
            near = [ids.index(target) for target in end.jumps if target in ids]
            far |= end.jumps - set(ids)
            if near:
                index, number = min(near), number + 1
            elif end.jumps or end.leaves:
                break
            else:
                index += 1
        return _End(True, far)

    def task(self, name: str, number: int, fatal: bool = False) -> _End:
        failed = lost = 0
        for act in acts_of(self.workflow, name, number):
            self.expected.ran[name] += 1
            match act.kind:
                case "fail":
                    failed += 1
                    if failed > RETRIES:
                        return _End(False)
                case "lose":
                    lost += 1
                    if lost == LOSSES:
                        return _End(False)
                case "iterate" | "ask":
                    continue
                case "succeed":
                    return _End(True)
                case "jump":
                    return _End(True, set(act.goto))
                case "add":
                    ends = [self.chain(member, 0, fatal) for member in act.added]
                    end = self.judge(ends, "strict")
                    return _End(end.ok, end.jumps | set(act.goto) if end.ok else set(), act.leaves)
        raise AssertionError(f"{name} does not end")


def acts_of(workflow: Workflow, name: str, number: int) -> list[Act]:
    """What a task does in a pass. Where a cycle would go on for ever, it jumps to the end."""
    if number >= PASSES and any(source == name for source, _ in workflow.loops):
        return [Act("jump", (END,))]
    return workflow.acts.get((name, number), [Act("succeed")])
