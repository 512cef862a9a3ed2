"""How a task or workflow says that code travels by name or whole: who wins, what is refused, what others notice."""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle.cloudpickle
import pytest

from graflow_celery import ConfigError, TaskWrapper, WorkflowContext, task, workflow
from graflow_celery.codec.callables import decode_callable, encode_callable, is_importable, shipping, travels_by_value
from graflow_celery.codec.location import home_modules
from graflow_celery.codec.manifest import code_of, pack_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import SerializationError
from tests.unit.codec.modules import Load, loader

CODEC = ValueCodec(("json", "pickle"))
MODULE = (
    "class Price:\n    def __init__(self, n): self.n = n\ndef helper(): return 1\ndef f(x=None): return helper(), x"
)


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    with loader(tmp_path) as load:
        yield load


def packed(wf: WorkflowContext, start: str | None = None) -> tuple[str, dict[str, str]]:
    """A workflow's hash, and how the functions of its tasks travel, by task."""
    plan = wf.plan(start)
    tasks: dict[str, Any] = {name: wf.graph.get_node(name) for name in plan.nodes}
    found = pack_graph(plan, tasks, CODEC, ship=wf.ship)
    kinds: dict[str, str] = {}
    for name, node in tasks.items():
        wrapper = code_of(node)
        assert wrapper is not None
        data = encode_callable(wrapper.func, task_id=name, ship=wrapper.ship or wf.ship)
        assert data in [bytes(CODEC.open(blob(), name=part).payload) for part, blob in found.parts.items()]
        kinds[name] = json.loads(data.partition(b"\n")[0])["kind"]
    return found.hash, kinds


def test_a_tasks_own_wins_over_the_workflows(load: Load) -> None:
    module = load("cs_wins", MODULE)
    with workflow("w", ship="value") as wf:
        first = task("own", ship="reference")(module.f)
        first >> task("auto", ship="auto")(module.f) >> task("by default")(module.f)
    assert packed(wf)[1] == {"own": "reference", "auto": "reference", "by default": "value"}


def test_copies_and_maps_of_a_task_travel_as_it_does(load: Load) -> None:
    module = load("cs_copies", MODULE)
    with workflow("w") as wf:
        whole = task("whole", ship="value")(module.f)
        whole(task_id="copy", x=1) >> whole.map(name="mapped")
    assert packed(wf, "copy")[1] == {"copy": "value", "mapped": "value"}


def test_how_a_function_travels_is_part_of_the_hash_and_of_no_option(load: Load) -> None:
    module = load("cs_hash", MODULE)

    def hash_of(**options: Any) -> str:
        with workflow("w") as wf:
            task("t", **options)(module.f)
        return packed(wf)[0]

    assert hash_of() == hash_of(ship="auto") == hash_of(ship="reference") != hash_of(ship="value")


@pytest.mark.parametrize("ship", ["", "Value", "by value", 1, True])
def test_what_it_cannot_be_is_refused_by_name(ship: Any) -> None:
    with pytest.raises(ConfigError, match=r"^@task\(ship=.*\): it has to be 'auto', 'reference' or 'value'\.$"):
        task(ship=ship)
    with pytest.raises(ConfigError, match=r"^workflow\(ship=.*\): it has to be 'auto', 'reference' or 'value'\.$"):
        workflow("w", ship=ship)


def test_a_workflow_by_reference_is_refused_with_the_task_that_has_no_name() -> None:
    with workflow("w", ship="reference") as wf:
        task("nameless")(lambda: 1)
    with pytest.raises(SerializationError, match=r"^Task 'nameless': ship='reference' .* use ship='auto'\.$"):
        packed(wf)


def test_by_value_needs_pickle(load: Load) -> None:
    func = load("cs_json", MODULE).f
    with pytest.raises(SerializationError, match=r"^Task 't': .*has ship='value'; .*lacks pickle"):
        encode_callable(func, task_id="t", ship="value", allow_pickle=False)


def test_what_is_sent_whole_is_so_for_nobody_else(load: Load) -> None:
    """Neither for other threads, nor in cloudpickle's registry, nor afterwards."""
    module = load("cs_alone", MODULE)
    seen: list[bool] = []

    def look() -> None:
        seen.append(travels_by_value("cs_alone") or not is_importable(module.f))

    with shipping(module.f, "value"):
        assert travels_by_value("cs_alone")
        assert not is_importable(module.f)
        other = threading.Thread(target=look)
        other.start()
        other.join()
        seen.append("cs_alone" in cloudpickle.cloudpickle.list_registry_pickle_by_value())
    look()
    assert seen == [False, False, False]


def test_it_is_taken_back_where_sending_fails(load: Load) -> None:
    module = load("cs_failing", "import threading\nLOCK = threading.Lock()\ndef f(): return LOCK")
    with pytest.raises(SerializationError, match="global 'LOCK'"):
        encode_callable(module.f, task_id="t", ship="value")
    assert is_importable(module.f)


def test_a_bound_value_of_the_functions_module_travels_with_it(load: Load) -> None:
    module = load("cs_bound", MODULE)
    with workflow("w", ship="value") as wf:
        task("t")(module.f)(task_id="bound", x=module.Price(1))
    plan = wf.plan()
    found = pack_graph(plan, {"bound": wf.graph.get_node("bound")}, CODEC, ship="value")  # type: ignore[dict-item]
    del sys.modules["cs_bound"]
    Path(module.__file__ or "").unlink()
    contents = [CODEC.open(blob(), name=name) for name, blob in found.parts.items()]
    [value] = [CODEC.read(content, what="value") for content in contents if content.serializer != "raw"]
    assert value.n == 1  # type: ignore[attr-defined]
    [data] = [bytes(content.payload) for content in contents if content.serializer == "raw"]
    assert decode_callable(data, task_id="t", where="worker w")() == (1, None)


def test_where_a_function_is_at_home(load: Load) -> None:
    module = load("cs_home", f"{MODULE}\nclass C:\n    def __call__(self): return 1\n    def m(self): return 1")
    wrapper = functools.wraps(module.f)(lambda: 1)
    for func in (module.f, functools.partial(module.f), module.C, module.C(), module.C().m, wrapper):
        assert home_modules(func) == {"cs_home"}
    assert isinstance(task(module.f), TaskWrapper)
