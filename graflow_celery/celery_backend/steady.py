"""A worker's consumer that survives the loss of its Redis broker while it holds messages.

Celery 5.7 with kombu 5.7 does not. When the connection breaks, kombu closes the channel, and a Redis channel that is
closed puts its unacknowledged messages back into their queues. For that it connects again, with the parameters of a
connection that has been taken from it by then: ``AttributeError: 'NoneType' object has no attribute 'hostname'``, and
the worker ends. Where the server answers again at that moment, kombu puts back the messages of running tasks too, which
then run twice.

Here the messages are taken from the channel before it is closed. When the worker has connected again, those of running
tasks go on in the new channel, to be acknowledged there when their task ends: in Redis a message belongs to no channel.
What was acknowledged or rejected meanwhile is so now, and the rest goes back to its queue at once.

Celery's setting ``worker_consumer`` names the class, so nothing is patched. Other brokers are left to Celery: RabbitMQ
itself delivers again what a broken connection held.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer
from kombu.transport.redis import Channel

logger = logging.getLogger(__name__)


class Parked:
    """Stands for a channel that broke, until there is another one: notes what is said of its messages meanwhile."""

    no_ack_consumers = None

    def __init__(self, messages: dict[str, Any]) -> None:
        self.messages = messages
        self._acknowledged: list[str] = []
        self._rejected: list[tuple[str, bool]] = []
        for message in messages.values():
            message.channel = self

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        self._acknowledged.append(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        self._rejected.append((delivery_tag, requeue))

    def unpark(self, channel: Channel, running: set[str]) -> int:
        """Goes on in a new channel; may be called again where that fails. Returns how many messages went back."""
        for tag in [tag for tag in self.messages if tag in running]:
            message = self.messages.pop(tag)
            message.channel = channel
            channel.qos._quick_append(tag, message)
        for tag in list(self._acknowledged):
            channel.qos.ack(tag)
            self.messages.pop(tag, None)
            self._acknowledged.remove(tag)
        for tag, requeue in list(self._rejected):
            channel.qos.reject(tag, requeue=requeue)
            self.messages.pop(tag, None)
            self._rejected.remove((tag, requeue))
        back = len(self.messages)
        for tag in list(self.messages):
            channel.qos.restore_by_tag(tag)
            del self.messages[tag]
        return back


class SteadyConsumer(Consumer):
    """See the module."""

    _parked: Parked | None = None

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        channel = self.task_consumer.channel if self.task_consumer else None
        if isinstance(channel, Channel) and not channel.closed:
            messages = self._parked.messages if self._parked is not None else {}
            channel.qos._flush()
            self._parked = Parked({**messages, **channel.qos._delivered})
            channel.qos._delivered.clear()
        super().on_connection_error_after_connected(exc)

    def on_ready(self) -> None:
        """Called whenever the worker has connected and declared its queues."""
        channel = self.task_consumer.channel
        if self._parked is not None and isinstance(channel, Channel):
            held = len(self._parked.messages)
            running = {str(request.message.delivery_tag) for request in tuple(state.active_requests)}
            back = self._parked.unpark(channel, running)
            self._parked = None
            logger.info("connected again: of %d messages %d went back to their queue, the others run here", held, back)
        super().on_ready()


def hang_up(consumer: Any) -> None:
    """Has a worker that shuts down wait for no message any more.

    In Redis its wait goes on for a second although nobody reads what comes of it; and what is given to it then stays
    there until all that runs has ended.
    """
    channel = consumer.task_consumer.channel if consumer is not None and consumer.task_consumer else None
    if isinstance(channel, Channel) and channel._in_poll and not channel._in_poll.can_read(timeout=0):
        channel._in_poll.disconnect()
        channel._in_poll = None
