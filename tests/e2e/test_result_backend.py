"""Celery's result backend is not asked for anything: groups come to their ends with any, and with none."""

from __future__ import annotations

import pytest
import redis
from celery import Celery

from graflow_celery import ParallelGroup, task, workflow
from graflow_celery.celery_backend.publisher import check_backend
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.errors import ConfigError


@task
def start() -> int:
    return 20


@task
def double(start: int) -> int:
    return 2 * start


@task
def fails() -> int:
    raise ValueError("as the test wants it")


@task
def after(double: int) -> int:
    return double + 2


@pytest.mark.workers
@pytest.mark.parametrize("backend", ["rpc://", "disabled://"])
@pytest.mark.parametrize("fuse", ["auto", "off"], ids=["fused", "by messages"])
def test_a_group_runs_with_any_result_backend(backend: str, fuse: str) -> None:
    with workflow("groups") as wf:
        inner = ParallelGroup([double(task_id="a"), fails], name="inner").with_execution(policy="best_effort")
        start >> (inner | double).set_group_name("outer") >> after
    with EmbeddedCluster(workers=1, concurrency=2, result_backend=backend, fuse=fuse) as cluster:
        assert wf.execute(backend="celery", settings=cluster.settings, timeout=60) == 42
        left = redis.Redis.from_url(cluster.server.url)
        assert not list(left.scan_iter("celery-task*")), "nothing is left as a result of Celery's"
        left.close()


def test_a_result_backend_that_celery_cannot_load_is_named() -> None:
    check_backend(Celery(broker="memory://", set_as_current=False))
    with pytest.raises(ConfigError, match="result_backend: Celery cannot use carrier-pigeon://x"):
        check_backend(Celery(broker="memory://", backend="carrier-pigeon://x", set_as_current=False))
