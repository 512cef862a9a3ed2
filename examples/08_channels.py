"""Channels: the tasks of a run share values. Adding and appending lose nothing, however many do it at once.
Run it: graflow-celery run examples/08_channels.py --backend embedded"""

import sysconfig
from pathlib import Path
from typing import Any, TypedDict

from graflow_celery import ParallelGroup, TaskExecutionContext, task, workflow


class Line(TypedDict):
    """What the members tell: a typed channel refuses anything else."""

    file: str
    number: int


@task(inject_context=True)
def search(context: TaskExecutionContext, file: str, word: str = "deprecated") -> None:
    text = Path(sysconfig.get_path("stdlib"), file).read_text(encoding="utf-8")
    context.get_channel().atomic_add("lines", text.count("\n"))
    for number, line in enumerate(text.splitlines(), start=1):
        if word in line:
            context.get_typed_channel(Line).append("found", {"file": file, "number": number})


@task(inject_context=True)
def report(context: TaskExecutionContext, lines: int) -> dict[str, Any]:
    found: list[Line] = context.get_typed_channel(Line).get("found", [])
    return {"lines": lines, "found": sorted((line["file"], line["number"]) for line in found)}


with workflow("channels") as wf:
    files = ("ast.py", "locale.py", "logging/__init__.py", "threading.py", "typing.py", "unittest/case.py")
    ParallelGroup([search(task_id=file, file=file) for file in files], name="searches") >> report
