"""Dynamic fan-out: `map` makes one member for each item of a result, however many there are at run time.
Run it: graflow-celery run examples/04_dynamic_fan_out.py --backend embedded"""

import re
import sysconfig
from pathlib import Path

from graflow_celery import task, workflow


@task
def files(package: str = "email") -> list[str]:
    return sorted(str(path) for path in Path(sysconfig.get_path("stdlib"), package).glob("*.py"))


@task
def words(path: str) -> list[str]:
    return sorted(set(re.findall(r"\w+", Path(path).read_text(encoding="utf-8"))))


@task
def index(files: list[str], words: list[list[str]]) -> dict[str, list[str]]:
    """For each word the files that have it. The members' results come in the order of the items."""
    where: dict[str, list[str]] = {}
    for path, found in zip(files, words, strict=True):
        for word in found:
            where.setdefault(word, []).append(Path(path).name)
    return where


with workflow("dynamic_fan_out") as wf:
    files >> words.map() >> index
