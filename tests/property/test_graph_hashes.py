"""A graph's hash: the same in fresh processes for the same tasks, another one for other options or bound values."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import graflow_celery
from graflow_celery import RetryPolicy, task, workflow
from graflow_celery.codec.manifest import pack_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.plan import TaskOptions
from tests.property.test_fingerprint_processes import Literal, literals

_PROGRAMS = 150
#: Another value than the default for each option, by the name that @task has it under.
OTHER: dict[str, Any] = {
    "queue": "gpu",
    "priority": 7,
    "time_limit": 9.0,
    "soft_time_limit": 8.0,
    "max_retries": 2,
    "retry": RetryPolicy(max_retries=3),
    "max_cycles": 4,
    "on_worker_loss": "fail",
    "max_losses": 5,
    "batch": 7,
}
_DRIVER = """
import importlib, json, sys
from graflow_celery import RetryPolicy, task, workflow
from graflow_celery.codec.manifest import pack_graph
from graflow_celery.codec.values import ValueCodec
sys.path.insert(0, sys.argv[1])
importable = importlib.import_module("at_home").importable
def local(a=None, b=None, c=None): return a, b, c
def hash_of(options, bound):
    options = {**options, "retry_policy": options.get("retry_policy") and RetryPolicy(**options["retry_policy"])}
    with workflow("w") as wf:
        template = task("t", **options)(importable if bound.pop("at home") else local)
        template(task_id="one", **bound) >> template(task_id="two", **bound)
    plan = wf.plan()
    return pack_graph(plan, {name: wf.graph.get_node(name) for name in plan.nodes}, ValueCodec(("json", "pickle"))).hash
json.dump([hash_of(options, eval(bound)) for options, bound in json.load(sys.stdin)], sys.stdout)
"""

options = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["gpu", "cpu"]),
        "priority": st.integers(0, 9),
        "time_limit": st.floats(1, 100),
        "max_retries": st.integers(0, 3),
        "retry_policy": st.fixed_dictionaries({"max_retries": st.integers(1, 3)}),
        "max_cycles": st.integers(1, 5),
        "on_worker_loss": st.sampled_from(["retry", "fail"]),
        "max_losses": st.integers(1, 5),
        "batch": st.integers(1, 1000),
        "inject_llm_client": st.just(False),
        "resolve_keyword_args": st.booleans(),
    },
)


@st.composite
def arguments(draw: st.DrawFn) -> Literal:
    """Bound values as the source of a dict, in two orders."""
    values = draw(st.lists(st.tuples(st.sampled_from("abc"), literals), max_size=3, unique_by=lambda item: item[0]))
    home = f"'at home': {draw(st.booleans())}, "
    one = "".join(f"{name!r}: {value.one}, " for name, value in values)
    other = "".join(f"{name!r}: {value.other}, " for name, value in draw(st.permutations(values)))
    return Literal(f"{{{home}{one}}}", f"{{{home}{other}}}")


def hashes(written: list[tuple[Any, str]], seed: int, home: Path, source: str) -> list[str]:
    """The hashes of workflows as a fresh process makes them, whose importable function lies in ``home``."""
    home.mkdir(exist_ok=True)
    (home / "at_home.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(home)],
        input=json.dumps(written),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={"PYTHONPATH": str(Path(graflow_celery.__file__).parents[1]), "PYTHONHASHSEED": str(seed), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_same_in_two_processes(tmp_path: Path) -> None:
    made: list[tuple[dict[str, Any], Literal]] = []

    @settings(max_examples=_PROGRAMS, phases=(Phase.generate,), deadline=None, database=None)
    @given(options, arguments())
    def collect(chosen: dict[str, Any], bound: Literal) -> None:
        made.append((chosen, bound))

    collect()
    source = "def importable(a=None, b=None, c=None): return a, b, c"
    moved = "# moved\n\n\ndef importable(a=None, b=None, c=None):\n    # and told of\n    return a, b, c"
    one = hashes([(chosen, bound.one) for chosen, bound in made], 1, tmp_path / "one", source)
    reordered = [(dict(reversed(chosen.items())), bound.other) for chosen, bound in made]
    other = hashes(reordered, 2, tmp_path / "other", moved)
    different = [made[number] for number, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
    assert not different, different[0]
    by_name: list[tuple[Any, str]] = [({}, "{'at home': True}")]
    assert hashes(by_name, 1, tmp_path / "one", source) == hashes(by_name, 2, tmp_path / "other", moved)
    assert hashes(by_name, 1, tmp_path / "one", source) != hashes(by_name, 2, tmp_path / "new", f"{source}, 1")


def hash_of(bound: dict[str, Any] | None = None, **given: Any) -> str:
    def body(x: Any = None, y: Any = None) -> None: ...

    with workflow("w") as wf:
        template = task("t", **given)(body)
        template(task_id="bound", **(bound or {"x": 1}))
    plan = wf.plan()
    node: Any = wf.graph.get_node("bound")
    return pack_graph(plan, {"bound": node}, ValueCodec(("json", "pickle"))).hash


def test_each_option_changes_it() -> None:
    assert set(OTHER) == {field.name for field in fields(TaskOptions)}, "every option has a value here"
    found = {
        name: hash_of(None, **{"retry_policy" if name == "retry" else name: value}) for name, value in OTHER.items()
    }
    found |= {
        "": hash_of(),
        "resolve": hash_of(resolve_keyword_args=False),
        "context": hash_of(inject_context=True, bound={"y": 1}),
    }
    assert len(set(found.values())) == len(found)
    assert hash_of() == hash_of()


@pytest.mark.parametrize(
    "other", [{"x": 2}, {"x": 1.0}, {"x": True}, {"y": 1}, {"x": [1]}, {"x": {1}}, {"x": 1, "y": 1}, {"x": "1"}]
)
def test_each_bound_value_changes_it(other: dict[str, Any]) -> None:
    assert hash_of() != hash_of(other)


def test_the_order_of_bound_values_does_not() -> None:
    one = {"x": {"a": {"k", "l", "m"}, "b": [1]}, "y": frozenset("abc")}
    other = {"y": frozenset("cba"), "x": {"b": [1], "a": {"m", "l", "k"}}}
    assert hash_of(one) == hash_of(other)
