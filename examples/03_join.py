"""Join: a task with several predecessors runs once, after all of them, and takes their results by name.
Run it: graflow-celery run examples/03_join.py --backend embedded"""

import pkgutil
import sys

from graflow_celery import task, workflow


@task
def known() -> list[str]:
    """The modules that the standard library of this version has on some system."""
    return sorted(name for name in sys.stdlib_module_names if not name.startswith("_"))


@task
def built_in(known: list[str]) -> list[str]:
    return [name for name in known if name in sys.builtin_module_names]


@task
def on_disk(known: list[str]) -> list[str]:
    return sorted({module.name for module in pkgutil.iter_modules()}.intersection(known))


@task
def absent(known: list[str], built_in: list[str], on_disk: list[str]) -> list[str]:
    """What this machine lacks of it."""
    return [name for name in known if name not in built_in and name not in on_disk]


with workflow("join") as wf:
    known >> built_in >> absent
    known >> on_disk >> absent
