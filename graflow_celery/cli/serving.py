"""``graflow-celery worker``, ``monitor`` and ``flower``: the processes that run for long."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence

import click

from graflow_celery import metrics
from graflow_celery.celery_backend.pulse import HealthFile
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.watching import Watch
from graflow_celery.cli import render
from graflow_celery.cli.interruption import handling
from graflow_celery.errors import UnavailableError
from graflow_celery.runs import client_runtime
from graflow_celery.settings import load_settings

logger = logging.getLogger(__name__)

_PASSED_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.command(context_settings=_PASSED_THROUGH, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> int:
    """Start a Celery worker: celery -A graflow_celery worker ARGUMENTS."""
    return _become_celery("worker", arguments)


@click.command(context_settings=_PASSED_THROUGH, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def flower(arguments: tuple[str, ...]) -> int:
    """Start Flower, Celery's web page: celery -A graflow_celery flower ARGUMENTS."""
    if importlib.util.find_spec("flower") is None:
        raise UnavailableError("Flower is not installed. Install it: pip install 'graflow-celery[flower]'")
    return _become_celery("flower", arguments)


@click.command()
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Serve Prometheus metrics there; 0 for none.  [default: the setting metrics_port]",
)
def monitor(metrics_port: int | None) -> int:
    """Start a monitor: it replaces what was lost with a worker, and sends again what was not sent.

    Every worker has one inside; a monitor of its own is for when no worker may be up. One of them leads at a time.
    """
    render.log_to_stderr()
    runtime = client_runtime()
    end_metrics = _serve_metrics(runtime, metrics_port)
    stopping = threading.Event()
    watch = Watch(runtime, f"monitor@{runtime.where}")
    logger.info("monitor on prefix '%s'", runtime.settings.key_prefix)
    settings = runtime.settings
    file = HealthFile(settings.health_file, f"monitor@{os.uname().nodename}", settings.heartbeat_interval)
    with handling((signal.SIGINT, signal.SIGTERM), lambda *_: stopping.set()):
        watch.start()
        while not stopping.is_set():
            if watch.lives:
                file.beat(watch.answers is True)
            stopping.wait(settings.heartbeat_interval)
    end_metrics()
    watch.stop()
    file.remove()
    logger.info("monitor stopped")
    return 0


def _serve_metrics(runtime: Runtime, port: int | None) -> Callable[[], None]:
    settings = runtime.settings
    port = settings.metrics_port if port is None else port
    if not port:
        return lambda: None
    end = metrics.serve(runtime, port, settings.metrics_address)
    logger.info("metrics at http://%s:%d/metrics", settings.metrics_address, port)
    return end


def _become_celery(program: str, arguments: Sequence[str]) -> int:
    """Replaces this process by Celery's command line. Settings are read first: their errors are told better here."""
    load_settings()
    command = [sys.executable, "-m", "celery", "-A", "graflow_celery", program, *arguments]
    sys.stdout.flush()
    os.execv(sys.executable, command)
