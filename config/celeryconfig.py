"""Celery's own settings for graflow_celery's workers: copy, edit, and name the copy on the command line.

    celery -A graflow_celery --config celeryconfig worker

(or in ``CELERY_CONFIG_MODULE``; the file lies in the working directory or on ``PYTHONPATH``. In this
repository it is ``--config config.celeryconfig``.) All of Celery's settings may stand here, under Celery's
lower-case names. Those that the engine depends on (late acknowledgement, serializers, the URLs of
``graflow.toml``) it sets itself, and wins.

An application that has a Celery app already keeps its own configuration, and calls
``graflow_celery.celery.setup(app)``; it may take lines from here.
"""

import logging.config
import tomllib
from pathlib import Path

from celery.signals import setup_logging

# --- workers ------------------------------------------------------------------------------------------

# Child processes of one worker. Celery's default is the number of cores; more pays when tasks mostly wait.
# worker_concurrency = 4

# A child is replaced after this many tasks, or when it has grown past so many KiB: the cure for code that
# leaks.
# worker_max_tasks_per_child = 1000
# worker_max_memory_per_child = 500_000

# What Flower and `celery events` show. They cost a small message for each step of a task.
worker_send_task_events = True
task_send_sent_event = True

# Keep trying while the broker is away, at the start too: in a deployment the two often start together.
broker_connection_retry_on_startup = True

# --- limits -------------------------------------------------------------------------------------------

# Seconds for any one task: at the soft limit SoftTimeLimitExceeded is raised in it, at the hard one its
# process is killed. A task's own @task(soft_time_limit=..., time_limit=...) beats these.
# task_soft_time_limit = 3500
# task_time_limit = 3600

# --- the broker ---------------------------------------------------------------------------------------

# TLS with certificates of your own (rediss:// and amqps:// URLs are enough for public ones).
# broker_use_ssl = {"ca_certs": "/etc/ssl/private-ca.pem"}
# redis_backend_use_ssl = {"ca_certs": "/etc/ssl/private-ca.pem"}

# Redis as a broker hands a message out again when it was not acknowledged for so many seconds. The tasks of a
# machine that went down wait for it; a task that runs longer runs twice. So let it be longer than your longest task.
# broker_transport_options = {"visibility_timeout": 12 * 3600}

# --- logging ------------------------------------------------------------------------------------------

_LOGGING = Path(__file__).with_name("logging.toml")


@setup_logging.connect
def configure_logging(**_: object) -> None:
    """Logs as ``logging.toml`` beside this file says, instead of Celery's ``--loglevel`` and ``--logfile``.

    Leave this function out to keep Celery's own logging.
    """
    logging.config.dictConfig(tomllib.loads(_LOGGING.read_text(encoding="utf-8")))
