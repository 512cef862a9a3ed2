"""Feedback: a task asks a person and gives its place up; it begins again when there is an answer.
Run it: graflow-celery run examples/10_feedback.py --backend embedded (in a terminal: you are asked there)"""

import shutil
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from graflow_celery import TaskExecutionContext, task, workflow

LIBRARY = sysconfig.get_path("stdlib")


@task
def sizes() -> dict[str, int]:
    packages = [path for path in Path(LIBRARY).iterdir() if path.name in ("email", "html", "json", "logging")]
    return {path.name: sum(file.stat().st_size for file in path.glob("*.py")) for path in sorted(packages)}


@task(inject_context=True)
def archive(context: TaskExecutionContext, sizes: dict[str, int]) -> dict[str, int]:
    """Packs the chosen package and tells what is in the archive."""
    chosen = context.request_selection(f"Which package is to be packed? {sizes}", options=list(sizes))
    with tempfile.TemporaryDirectory() as folder:
        made = shutil.make_archive(str(Path(folder, chosen)), "zip", Path(LIBRARY, chosen))
        files = zipfile.ZipFile(made).infolist()
    return {file.filename: file.file_size for file in files if file.filename.endswith(".py")}


with workflow("feedback") as wf:
    sizes >> archive
