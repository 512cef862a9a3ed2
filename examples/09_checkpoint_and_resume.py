"""Checkpoint and resume: a run that failed goes on, in another process if need be, from what it had come to.
Run it: python examples/09_checkpoint_and_resume.py"""

import ast
import sqlite3
import sysconfig
import tempfile
from pathlib import Path

from graflow_celery import CheckpointManager, TaskExecutionContext, task, workflow


@task
def scan() -> list[tuple[str, str]]:
    files = Path(sysconfig.get_path("stdlib"), "email").glob("*.py")
    trees = {file.name: ast.walk(ast.parse(file.read_text(encoding="utf-8"))) for file in files}
    return [(file, node.name) for file, nodes in trees.items() for node in nodes if isinstance(node, ast.FunctionDef)]


@task(inject_context=True)
def store(context: TaskExecutionContext, scan: list[tuple[str, str]], folder: str) -> dict[str, int]:
    context.checkpoint(path=f"{folder}/scanned.ckpt", deferred=False)  # from here on, with what was scanned
    with sqlite3.connect(f"{folder}/databases/functions.db") as database:
        database.execute("CREATE TABLE functions (file, name)")
        database.executemany("INSERT INTO functions VALUES (?, ?)", scan)
        return dict(database.execute("SELECT file, count(*) FROM functions GROUP BY file"))


with workflow("checkpoint_and_resume") as wf:
    scan >> store

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        try:
            wf.execute(initial_channel={"folder": folder})
        except sqlite3.OperationalError:
            Path(folder, "databases").mkdir()  # what was missing
        context, _ = CheckpointManager.resume_from_checkpoint(f"{folder}/scanned.ckpt")
        print(context.execute())
