"""Sends what the compiler made: the messages in one batch, then the outbox is acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import redis
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError

from graflow_celery.celery_backend.compiler import (
    NO_REPLY,
    NODE_TASK,
    Divide,
    Message,
    compile_commands,
    compile_members,
    one_each,
)
from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode
from graflow_celery.core.plan import Plan
from graflow_celery.errors import ConfigError, StoreUnavailableError
from graflow_celery.ports import Members, RunRef
from graflow_celery.redis_backend.client import failure, short
from graflow_celery.settings import mask_url
from graflow_celery.tracing.identity import Kind

#: The options that describe the task rather than its delivery.
HEADERS = (
    "task_id",
    "root_id",
    "group_id",
    "group_index",
    "argsrepr",
    "time_limit",
    "soft_time_limit",
)
#: Headers of Celery's message protocol that are read without a default; the empty ones among the others are left out.
#: See https://docs.celeryq.dev/en/stable/internals/protocol.html
KEPT_HEADERS = frozenset({"lang", "task", "id", "eta", "group", "group_index", "root_id"})

#: Seconds for which a worker may hold a message until its time has come.
LONGEST_COUNTDOWN = 30.0
#: Messages that one batch sends.
SLICE = 1000

Acknowledge = Callable[[RunRef, Sequence[Command]], None]
#: ``headers(run, "node" or "group", key)``: what a message of an activation carries besides.
Headers = Callable[[RunRef, Kind, str], Mapping[str, str]]


class CeleryExecutor:
    """See :class:`graflow_celery.ports.Executor`: nodes run on Celery workers."""

    def __init__(self, app: Celery, acknowledge: Acknowledge, headers: Headers, divide: Divide = one_each) -> None:
        self._app = app
        self._acknowledge = acknowledge
        self._headers = headers
        self._divide = divide

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        """Raises StoreUnavailableError if the broker does not answer, StoreRefusedError if it takes nothing more; the
        commands stay in the outbox then.

        A delay beyond LONGEST_COUNTDOWN is left to the outbox: the monitor sends the commands when they are due. So is
        what no message carries out.
        """
        if delay > LONGEST_COUNTDOWN or (delay and not all(isinstance(item, DispatchNode) for item in commands)):
            return
        self._send(compile_commands(run, plan, commands, self._divide), delay)
        # A barrier's message is in no worker's lease: until the barrier is closed, its command stays in the outbox.
        self._acknowledge(run, [command for command in commands if not isinstance(command, CloseBarrier)])

    def share(self, run: RunRef, plan: Plan, members: Members) -> None:
        """Raises what :meth:`send` raises."""
        self._send(compile_members(run, plan, members, self._divide), 0.0)

    def _send(self, messages: Sequence[Message], delay: float) -> None:
        try:
            for start in range(0, len(messages), SLICE):
                self._publish(messages[start : start + SLICE], delay)
        except redis.ResponseError as error:
            raise failure(self._app.conf.broker_url, error) from None
        except self._broker_errors as error:
            raise StoreUnavailableError(mask_url(self._app.conf.broker_url), short(error)) from error

    @cached_property
    def _broker_errors(self) -> tuple[type[Exception], ...]:
        """What says that the broker is away. A KeyError, which kombu counts among them, says nothing here."""
        with self._app.connection_for_write() as broker:
            found = (OperationalError, *broker.connection_errors, *broker.channel_errors)
        return tuple(kind for kind in found if not issubclass(kind, LookupError))

    def _publish(self, messages: Sequence[Message], delay: float) -> None:
        amqp = self._app.amqp
        with self._app.producer_or_acquire() as producer, producer.batch():
            for message in messages:
                options = amqp.router.route(dict(message.options), message.task, message.args, {})
                headers = {name: options.pop(name) for name in HEADERS if name in options}
                made = amqp.as_task_v2(
                    name=message.task,
                    args=message.args,
                    ignore_result=True,
                    reply_to=NO_REPLY,
                    kwargsrepr="",
                    create_sent_event=self._app.conf.task_send_sent_event,
                    countdown=delay or None,
                    **headers,
                )
                _slim(made.headers)
                run_id, graph, key = message.args[:3]
                kind: Kind = "node" if message.task == NODE_TASK and isinstance(message.args[3], int) else "group"
                made.headers.update(self._headers(RunRef(run_id, graph), kind, key))
                amqp.send_task_message(producer, message.task, made, **options)


def check_backend(app: Celery) -> None:
    """Raises ConfigError for a broker that Celery does not know, or a result backend that it cannot load.

    Which one that is, if any, is all the same to runs: their outcomes are kept in the run store.
    """
    try:
        app.connection_for_write().transport_cls  # noqa: B018 - looks the transport up
    except (KeyError, ImportError) as error:
        raise ConfigError(
            f"Setting broker_url: Celery has no transport for {mask_url(app.conf.broker_url or 'none')} ({error}). "
            f"Use redis://..., rediss://..., redis+socket://... or amqp://..."
        ) from None
    url = mask_url(app.conf.result_backend or "none")
    try:
        app.backend  # noqa: B018 - loads it
    except (ImproperlyConfigured, ImportError) as error:
        raise ConfigError(
            f"Setting result_backend: Celery cannot use {url} ({error}). Use redis://..., or disabled:// for none"
        ) from None


def _slim(headers: dict[str, Any]) -> None:
    """Takes away what tells no more than Celery assumes."""
    for name in [name for name, value in headers.items() if name not in KEPT_HEADERS and not _says(value)]:
        del headers[name]


def _says(header: object) -> bool:
    """Whether a header holds more than Celery assumes without it."""
    return bool(header) and header != [None, None]
