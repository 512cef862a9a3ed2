"""The content store on a server: what is fetched how often, and what is dropped first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from graflow_celery.codec.envelope import Content
from graflow_celery.codec.values import ValueCodec, content_name
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.redis_backend.client import connect
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.keys import Keys

SIZE = 100_000
CODEC = ValueCodec(("json",), (b"secret",))
KEYS = Keys("content")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


def store(server: EmbeddedServer, cache: int = 1 << 24, codec: ValueCodec = CODEC) -> ContentStore:
    return ContentStore(connect(server.url), KEYS, codec, ttl=60, cache_bytes=cache)


def stored(server: EmbeddedServer, mark: int) -> str:
    """The name of a blob of SIZE bytes that is stored now."""
    content = Content("raw", bytes([mark]) * SIZE)
    name = content_name(content)
    store(server).put_value(name, content)
    return name


def test_of_twenty_threads_one_fetches(server: EmbeddedServer) -> None:
    names = [stored(server, mark) for mark in (1, 2)]
    reader = store(server)
    together = threading.Barrier(20)

    def read(number: int) -> bytes:
        together.wait(timeout=20)
        return bytes(reader.get(names[number % 2], "v").payload)

    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(read, range(20)))
    assert reader.downloads == 2, "each of two blobs once"
    assert found == [bytes([1 + number % 2]) * SIZE for number in range(20)]
    assert not reader._fetching._under_way


def test_a_fetch_that_fails_leaves_the_next_one_free(server: EmbeddedServer) -> None:
    reader = store(server)
    name = content_name(Content("raw", bytes([3]) * SIZE))
    together = threading.Barrier(5)

    def read() -> str:
        together.wait(timeout=20)
        with pytest.raises(BlobMissingError) as caught:
            reader.get(name, "result of task 'x'")
        return str(caught.value)

    with ThreadPoolExecutor(5) as pool:
        texts = [done.result() for done in [pool.submit(read) for _ in range(5)]]
    assert all(name in text and "result of task 'x'" in text for text in texts)
    assert stored(server, 3) == name
    assert len(reader.get(name, "v").payload) == SIZE
    assert not reader._fetching._under_way


def test_the_least_used_is_dropped_first(server: EmbeddedServer) -> None:
    one, two, three, four = (stored(server, mark) for mark in (11, 12, 13, 14))
    reader = store(server, cache=3 * SIZE)
    for name in (one, two, three, one, four):  # two is the least used when four comes
        reader.get(name, "v")
    assert reader.downloads == 4
    for name in (one, three, four):
        reader.get(name, "v")
    assert reader.downloads == 4
    reader.get(two, "v")
    assert reader.downloads == 5
    assert reader._cache._held == 3 * SIZE


def test_what_is_larger_than_the_cache_is_read_and_not_kept(server: EmbeddedServer) -> None:
    small = stored(server, 21)
    name = content_name(content := Content("raw", b"x" * (4 * SIZE)))
    store(server).put_value(name, content)
    reader = store(server, cache=2 * SIZE)
    reader.get(small, "v")
    for _ in range(2):
        assert len(reader.get(name, "v").payload) == 4 * SIZE
    reader.get(small, "v")
    assert reader.downloads == 3, "it did not push out what fits"
    without = store(server, cache=0)
    for _ in range(2):
        without.get(small, "v")
    assert without.downloads == 2


def test_a_value_is_uploaded_once_whoever_makes_it(server: EmbeddedServer) -> None:
    content = Content("raw", b"y" * SIZE)
    first, second = store(server), store(server)
    for writer in (first, second, first):
        writer.put_value(content_name(content), content)
    assert (first.uploads, second.uploads) == (1, 0)
    assert len(first.get(content_name(content), "v").payload) == SIZE
    assert first.downloads == 0, "who made it has it at hand"


@pytest.mark.parametrize("before", [(), (b"old",), (b"secret", b"old")], ids=["none", "old", "same"])
def test_what_was_stored_under_another_secret_is_stored_again(
    server: EmbeddedServer, before: tuple[bytes, ...]
) -> None:
    """Else workers that know the new secret alone would refuse it for as long as somebody submits it."""
    content = Content("raw", f"{before}".encode() + bytes(SIZE))
    name = content_name(content)
    store(server, codec=ValueCodec(("json",), before)).put_value(name, content)
    strict, rotating = store(server), store(server, codec=ValueCodec(("json",), (b"secret", b"old")))
    assert rotating.absent([name]) == strict.absent([name]) == ([] if before[:1] == (b"secret",) else [name])
    rotating.put_value(name, content)
    assert rotating.uploads == (0 if before[:1] == (b"secret",) else 1)
    assert strict.absent([name]) == []
    assert bytes(strict.get(name, "v").payload) == content.payload
    assert store(server, codec=ValueCodec(("json",))).absent([name]) == [], "who has no secret looks at no signature"


def test_a_blob_that_was_tampered_with_is_not_kept(server: EmbeddedServer) -> None:
    name = stored(server, 31)
    client, reader = connect(server.url), store(server)
    whole = client.get(KEYS.blob(name))
    client.set(KEYS.blob(name), whole[:-1] + b"!")
    with pytest.raises(BlobRejectedError, match=f"^Blob {name} \\(key 'k'\\): "):
        reader.get(name, "key 'k'")
    client.set(KEYS.blob(name), whole)
    assert bytes(reader.get(name, "key 'k'").payload) == bytes([31]) * SIZE
