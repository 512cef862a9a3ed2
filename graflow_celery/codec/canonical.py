"""One spelling for the same data, and its digest."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

from graflow_celery.errors import SerializationError

#: What JSON can say.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

DIGEST_BYTES = 16


def canonical_json(value: Any) -> bytes:
    """``value`` as JSON with sorted keys and no spaces, in UTF-8.

    Dict keys have to be strings; tuples become lists. A lone surrogate (a file name that is no valid text)
    keeps its own three bytes, as ``json.loads`` reads it back.

    Raises:
        SerializationError: JSON cannot say it (another type, NaN, an infinite number, a cycle).
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(
            "canonical JSON", f"{error}. Use None, bool, int, float, str, list and dict with string keys."
        ) from None
    return text.encode("utf-8", "surrogatepass")


def digest(*parts: bytes | memoryview) -> str:
    """The content hash of ``parts``, one after the other: 32 hexadecimal characters (BLAKE2b)."""
    hashing = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        hashing.update(part)
    return hashing.hexdigest()
