"""What the store and messages say of a run and nobody else may: which graph it is of, and where its checkpoints go."""

from __future__ import annotations

import base64
import binascii

from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import BlobRejectedError
from graflow_celery.ports import RunRef


def signed(run: RunRef, codec: ValueCodec) -> RunRef:
    """The run with a signature over its id and its graph; as it is, where there is no secret."""
    tag = tag_of(run, "run", run.version, codec)
    return RunRef(run.id, f"{run.version}.{tag}" if tag else run.version)


def check(run: RunRef, codec: ValueCodec) -> None:
    """Raises BlobRejectedError where a secret is set that did not sign the run's graph."""
    check_tag(run.tag, run, "run", run.version, codec, what=f"graph {run.version} of run {run.id}")


def tag_of(run: RunRef, purpose: str, text: str, codec: ValueCodec) -> str:
    """A signature over what is said of a run, as text; empty where there is no secret."""
    return base64.urlsafe_b64encode(codec.tag(_bytes(run, purpose, text))).rstrip(b"=").decode()


def check_tag(tag: str, run: RunRef, purpose: str, text: str, codec: ValueCodec, *, what: str) -> None:
    """Raises BlobRejectedError, which names ``what``, where a secret is set that did not make ``tag`` of the same."""
    try:
        found = base64.urlsafe_b64decode(tag + "=" * (-len(tag) % 4))
    except (binascii.Error, ValueError):
        raise BlobRejectedError(f"{what[:1].upper()}{what[1:]}: its signature is damaged.") from None
    codec.check_tag(_bytes(run, purpose, text), found, what=what)


def _bytes(run: RunRef, purpose: str, text: str) -> bytes:
    return f"{purpose}\0{run.id}\0{text}".encode("utf-8", "surrogateescape")
