"""How a manifest is cut into pages, which versions of a graph share, and how its root and pages are stored.

The root lists its pages by their digests, and the graph's name is the digest of the root: a Merkle tree. Where a page
ends depends on the ids of nearby nodes alone, so a node that comes or goes leaves all pages but its own as they were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from graflow_celery.codec.canonical import canonical_json, digest
from graflow_celery.errors import BlobRejectedError

#: A page ends after a node whose id has the greatest digest among so many before it and as many after it: every 17th,
#: more or less.
REACH = 8
#: A node that names more others than this has a page of its own, so that its neighbours' pages stay small.
LARGE = 64
#: Pages that have no more bytes together are always stored with the root; a graph of one page is, too.
SMALL = 8192
#: Else those of a new version are, as long as they are no more than one in so many.
SHARE = 8

#: A node's id, and what of it differs from the defaults.
Entry = list[Any]


def paged(entries: Sequence[Entry], large: Collection[str]) -> dict[str, bytes]:
    """The pages of a graph by their names, in order. ``large``: nodes that have a page of their own."""
    marks = [blake2b(entry[0].encode("utf-8", "surrogatepass"), digest_size=8).digest() for entry in entries]
    pages: dict[str, bytes] = {}
    start = 0
    for end in range(1, len(entries) + 1):
        if end == len(entries) or entries[end][0] in large or entries[end - 1][0] in large or _is_peak(marks, end - 1):
            page = canonical_json(entries[start:end])
            pages[digest(page)] = page
            start = end
    return pages


def _is_peak(marks: Sequence[bytes], index: int) -> bool:
    return marks[index] == max(marks[max(0, index - REACH) : index + REACH + 1])


def is_small(pages: Mapping[str, bytes]) -> bool:
    """Whether all pages are stored with the root, whatever the store has."""
    return len(pages) <= 1 or sum(map(len, pages.values())) <= SMALL


def stored(root: bytes, pages: Sequence[bytes]) -> bytes:
    """The manifest's blob: the root, and the pages that are not blobs of their own, one a line.

    Canonical JSON has no line feeds.
    """
    return b"\n".join((root, *pages))


def opened(name: str, data: bytes | memoryview) -> tuple[bytes, dict[str, bytes]]:
    """The root out of the manifest's blob, and the pages that were stored with it, by name.

    Raises BlobRejectedError: it is not what was stored as the graph ``name``.
    """
    root, *pages = bytes(data).split(b"\n")
    if digest(root) != name:
        raise BlobRejectedError(f"Blob {name} (graph {name}) is not what was stored: its digest differs.")
    return root, {digest(page): page for page in pages}


def checked(name: str, page: bytes | memoryview, what: str) -> bytes:
    """Raises BlobRejectedError unless ``page`` is the page of that name."""
    if digest(page) != name:
        raise BlobRejectedError(f"Blob {name} ({what}) is not what was stored: its digest differs.")
    return bytes(page)


def with_root(pages: Mapping[str, bytes], absent: Collection[str]) -> list[str]:
    """The pages that are stored with a root that is not stored yet; ``absent``: what the store lacks."""
    if is_small(pages):
        return list(pages)
    lacking = [page for page in pages if page in absent]
    return lacking if len(lacking) * SHARE <= len(pages) else []
