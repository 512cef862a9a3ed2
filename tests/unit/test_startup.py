"""What is loaded when the package, the shell or a worker starts. Counts, not times: those differ with the machine.

A limit that is passed is raised on purpose or not at all: `python -X importtime` says what the newcomer costs.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What is loaded by each start, and how many modules may be, above those of a bare interpreter.
STARTS = (
    ("import graflow_celery", 40),
    ("import graflow_celery.compat", 80),
    ("import graflow_celery.cli.entry", 60),
    ("import graflow_celery.cli.main", 80),
    ("from graflow_celery import task, workflow", 160),
)
REPORT = """
import sys
before = set(sys.modules)
{start}
loaded = sorted(set(sys.modules) - before)
print(*loaded)
"""


def loaded_by(start: str) -> list[str]:
    command = [sys.executable, "-c", REPORT.format(start=start)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()


def among(loaded: list[str], names: tuple[str, ...]) -> list[str]:
    return [module for module in loaded if module.partition(".")[0] in names]


@pytest.mark.parametrize(("start", "most"), STARTS)
def test_a_start_loads_little(start: str, most: int) -> None:
    loaded = loaded_by(start)
    assert len(loaded) <= most, loaded


@pytest.mark.parametrize("start", [start for start, _ in STARTS])
def test_no_start_loads_what_it_may_never_need(start: str) -> None:
    heavy = ("celery", "kombu", "redis", "pydantic", "rich", "asyncio", "numpy", "opentelemetry", "cloudpickle")
    assert among(loaded_by(start), heavy) == []


def test_a_worker_loads_nothing_that_only_clients_and_people_need() -> None:
    """Each of its processes pays: pydantic alone would be 9 MB in each."""
    unneeded = ("pydantic", "pydantic_settings", "dotenv", "rich", "flower", "prometheus_client", "langfuse")
    loaded = loaded_by("import graflow_celery.celery")
    assert among(loaded, (*unneeded, "numpy", "pandas", "litellm", "pytest", "tomllib")) == []
    assert [name for name in loaded if name.startswith(("graflow_celery.cli.", "graflow_celery.terminal."))] == []
    assert len([name for name in loaded if name.startswith("graflow_celery.")]) <= 165
