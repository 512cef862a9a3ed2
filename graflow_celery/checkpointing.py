"""Taking and finding checkpoints: which store a path leads to, and what goes into the bytes.

A path is a file's; or ``redis:NAME``, in the store that the settings name; or ``redis://host:port/db/NAME``, in another
one. A checkpoint that is given no path gets a name, in the directory ``checkpoints`` or in the settings' store.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.plan import Plan
from graflow_celery.engine.checkpoint import (
    Checkpoint,
    CheckpointMetadata,
    SentGraphs,
    checkpoint_of,
    pack,
    unpack,
)
from graflow_celery.errors import CheckpointError
from graflow_celery.memory_backend.checkpoint_store import DirectoryCheckpointStore
from graflow_celery.ports import CheckpointStore, RunRef, Snapshot
from graflow_celery.redis_backend.checkpoint_store import RedisCheckpointStore
from graflow_celery.redis_backend.client import connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.settings import Settings, load_settings, mask_url

DIRECTORY = "checkpoints"
#: Stands for the store that the settings name.
STORE = "redis:"
SUFFIX = ".ckpt"
_SCHEMES = ("redis", "rediss", "valkey", "valkeys")

Where = str | os.PathLike[str] | CheckpointStore


class Source(Protocol):
    """A run that a checkpoint can be taken of. ``backend``: see CheckpointMetadata."""

    run: RunRef
    plan: Plan
    backend: dict[str, str]

    def snapshot(self) -> Snapshot: ...

    def graphs(self, codec: ValueCodec) -> SentGraphs:
        """The graphs that a snapshot speaks of which was taken before. Raises SerializationError."""

    def taken(self, path: str, metadata: CheckpointMetadata) -> None:
        """Notes that a checkpoint is there now."""


def codec_of(settings: Settings) -> ValueCodec:
    """How the settings want values written and signed."""
    secrets_ = () if settings.secret_key is None else (settings.secret_key, *settings.secret_keys_accepted)
    keys = tuple(secret.get_secret_value().encode() for secret in secrets_)
    return ValueCodec(settings.serializers, keys, settings.value_limit)


def take(
    source: Source,
    metadata: Mapping[str, Any],
    path: str | os.PathLike[str] | None,
    where: Where,
    settings: Settings | None = None,
) -> tuple[str, CheckpointMetadata]:
    """Keeps what a run has come to; returns the path, and what is known of the checkpoint.

    Args:
        path: where to; a name below ``where`` is made if there is none.

    Raises:
        SerializationError: a function or a value cannot be written; it is named.
        CheckpointError: the file cannot be written. StoreUnavailableError: no server answers.
    """
    chosen = settings or load_settings()
    codec = codec_of(chosen)
    snapshot = source.snapshot()
    now = datetime.fromtimestamp(time.time(), UTC)
    session = source.run.id
    stamp = f"{session}_step_{snapshot.state.steps}_{int(now.timestamp() * 1000)}{secrets.token_hex(2)}"
    made = CheckpointMetadata(
        stamp,
        session,
        now.isoformat(),
        snapshot.state.steps,
        source.plan.start,
        source.backend,
        dict(metadata),
    )
    checkpoint = checkpoint_of(made, source.plan.name, snapshot, source.graphs(codec))
    store, name = find(os.fspath(path), chosen) if path is not None else (open_store(where, chosen), "")
    kept = store.save(name or f"{session}/session_{stamp}{SUFFIX}", pack(checkpoint, codec))
    source.taken(kept, made)
    return kept, made


def read(path: str | os.PathLike[str], settings: Settings | None = None) -> Checkpoint:
    """The checkpoint at a path.

    Raises:
        CheckpointError: there is none, or it cannot be read here. StoreUnavailableError: no server answers.
    """
    chosen = settings or load_settings()
    store, name = find(os.fspath(path), chosen)
    return unpack(store.load(name), mask_url(os.fspath(path)) if _is_url(path) else os.fspath(path), codec_of(chosen))


def find(path: str, settings: Settings) -> tuple[CheckpointStore, str]:
    """The store that a path leads to, and the name there; empty if the path names the store alone."""
    if path.startswith(STORE) and not _is_url(path):
        return open_store(STORE, settings), path.removeprefix(STORE)
    if _is_url(path):
        address, name = _split(path)
        return open_store(address, settings), name
    if "://" in path:
        raise CheckpointError(path, "checkpoints are kept in files or in Redis: give a path, redis:NAME or redis://...")
    file = Path(path)
    return DirectoryCheckpointStore(file.parent), file.name


def open_store(where: Where, settings: Settings) -> CheckpointStore:
    """The store at a directory, at ``redis:``, or at a server's URL. Connects to nothing, and makes no directory."""
    if not isinstance(where, str | os.PathLike):
        return where
    place = os.fspath(where)
    keys = Keys(settings.key_prefix)
    if place == STORE:
        return RedisCheckpointStore(connect(settings.redis_url), keys, settings.redis_url, settings.run_ttl)
    if _is_url(place):
        address, _ = _split(place)
        url = address.replace("valkey", "redis", 1)
        return RedisCheckpointStore(connect(url), keys, address, settings.run_ttl, mask_url(address))
    return DirectoryCheckpointStore(place)


def _is_url(path: str | os.PathLike[str]) -> bool:
    return isinstance(path, str) and urlsplit(path).scheme in _SCHEMES and "://" in path


def _split(url: str) -> tuple[str, str]:
    """A server's URL with its database, and the name behind it."""
    parts = urlsplit(url)
    database, _, name = parts.path.strip("/").partition("/")
    if not database.isdigit():
        database, name = "0", parts.path.strip("/")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}/{database}{query}", name
