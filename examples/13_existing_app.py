"""An existing Celery app: `setup(app)` adds the engine, and its workers run workflows beside the app's own tasks.
Run it: celery -A 13_existing_app worker (in this folder, GRAFLOW_CELERY_REDIS_URL set); python 13_existing_app.py"""

import sysconfig
import zlib
from pathlib import Path

from celery import Celery

from graflow_celery import Settings, task, workflow
from graflow_celery.celery import setup

settings = Settings()
app = Celery("archive", broker=settings.broker, backend=settings.backend)
setup(app)


@app.task(name="archive.checksum")
def checksum(path: str) -> int:
    """A task that the app had before; called as a function, it is one."""
    return zlib.crc32(Path(path).read_bytes())


@task
def files(pattern: str = "json/*.py") -> list[str]:
    return sorted(str(path) for path in Path(sysconfig.get_path("stdlib")).glob(pattern))


@task
def catalogue(files: list[str]) -> dict[str, int]:
    return {Path(path).name: checksum(path) for path in files}


with workflow("existing_app") as wf:
    files >> catalogue

if __name__ == "__main__":
    print({"workflow": wf.execute(backend="celery"), "own task": checksum.delay(__file__).get(timeout=10)})
