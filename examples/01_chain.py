"""Chain: one task after the other. A parameter that is named after a task receives that task's result.
Run it: graflow-celery run examples/01_chain.py --backend embedded"""

import ast
import sysconfig
from pathlib import Path

from graflow_celery import task, workflow


@task
def source(module: str = "json/decoder.py") -> str:
    return Path(sysconfig.get_path("stdlib"), module).read_text(encoding="utf-8")


@task
def functions(source: str) -> dict[str, int]:
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in found}


@task
def longest(functions: dict[str, int]) -> str:
    name = max(functions, key=functions.__getitem__)
    return f"{name}: {functions[name]} lines"


with workflow("chain") as wf:
    source >> functions >> longest
