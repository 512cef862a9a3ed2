"""What a run needs lives on while it goes on, for longer than ``run_ttl`` if it has to."""

from __future__ import annotations

import logging

from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.holdings import Holdings
from graflow_celery.redis_backend.keys import Keys

#: The part of ``run_ttl`` after which the monitor renews what a run that goes on needs.
RENEWED = 0.25

logger = logging.getLogger(__name__)


def renew(client: Client, keys: Keys, content: ContentStore, holdings: Holdings, run: RunRef) -> None:
    """Renews the graphs and values of a run, and what it has written; its state lives for ``run_ttl`` after its events.

    A few round trips, whatever the run's size, and one for each 500 large values.
    """
    held, of_run = holdings.of(run.id), keys.run(run.id)
    written = (
        of_run.results,
        of_run.errors,
        of_run.inputs,
        of_run.feedback,
        of_run.channel,
        of_run.checkpoints,
        of_run.blobs,
    )
    with client.pipeline(transaction=False) as pipe:
        for key in (*written, of_run.end):
            pipe.expire(key, content.ttl)
        pipe.execute()
    holdings.hold(run, held.values)
    for graph in (run.hash, *held.graphs):
        try:
            content.absent(content.names_of(graph))
        except (BlobMissingError, BlobRejectedError) as error:  # whoever runs it finds that out, too
            logger.warning("run %s: a graph of it could not be renewed: %s", run.id, error)
