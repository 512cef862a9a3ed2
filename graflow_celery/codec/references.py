"""Which graph a run is of, signed: the one reference that messages carry and that the store has of every run."""

from __future__ import annotations

import base64
import binascii

from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import BlobRejectedError
from graflow_celery.ports import RunRef


def signed(run: RunRef, codec: ValueCodec) -> RunRef:
    """The run with a signature over its id and its graph; as it is, where there is no secret."""
    tag = base64.urlsafe_b64encode(codec.tag(_text(run))).rstrip(b"=").decode()
    return RunRef(run.id, f"{run.version}.{tag}" if tag else run.version)


def check(run: RunRef, codec: ValueCodec) -> None:
    """Raises BlobRejectedError where a secret is set that did not sign the run's graph."""
    try:
        tag = base64.urlsafe_b64decode(run.tag + "=" * (-len(run.tag) % 4))
    except (binascii.Error, ValueError):
        raise BlobRejectedError(f"Graph {run.version} of run {run.id}: its signature is damaged.") from None
    codec.check_tag(_text(run), tag, what=f"graph {run.version} of run {run.id}")


def _text(run: RunRef) -> bytes:
    return f"run\0{run.id}\0{run.version}".encode()
