"""Async: tasks may be coroutines, and a program may await its runs, several at once.
Run it: python examples/11_async.py"""

import asyncio
import hashlib
import sysconfig
from pathlib import Path
from typing import Any

from graflow_celery import task, workflow


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@task
def files(package: str) -> list[Path]:
    return sorted(Path(sysconfig.get_path("stdlib"), package).glob("*.py"))


@task
async def digests(files: list[Path]) -> str:
    """Reads all files at once, each in a thread, and makes one digest of theirs."""
    found = await asyncio.gather(*(asyncio.to_thread(digest, file) for file in files))
    lines = [f"{code}  {file.name}\n" for code, file in zip(found, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


with workflow("async") as wf:
    files >> digests


async def main() -> list[Any]:
    return await asyncio.gather(*(wf.execute_async(initial_channel={"package": name}) for name in ("json", "email")))


if __name__ == "__main__":
    print(asyncio.run(main()))
