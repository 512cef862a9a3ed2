"""What a client asks for before it uploads a graph, and what it knows already, with a real server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from graflow_celery import chain, task, workflow
from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.codec.manifest import PackedGraph, load_graph, pack_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.expr import Executable
from graflow_celery.core.extend import extend
from graflow_celery.core.place import Place
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client, connect
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.seen import SeenNames
from graflow_celery.redis_backend.values import ValueStore, references
from graflow_celery.settings import Settings

CODEC = ValueCodec(("json", "pickle"))
TTL = 1000


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.fixture(scope="module")
def client(server: EmbeddedServer) -> Iterator[Client]:
    client = connect(server.url)
    yield client
    client.close()


@pytest.fixture
def keys() -> Keys:
    return Keys(uuid.uuid4().hex[:8])


def store(client: Client, keys: Keys) -> ContentStore:
    return ContentStore(client, keys, CODEC, TTL, 1 << 20)


def graph(nodes: int, changed: int = -1, name: str = "p") -> PackedGraph:
    ids = [f"the node with number {index}" for index in range(nodes)]
    specs = {node: NodeSpec(node, needs=int(index == changed)) for index, node in enumerate(ids)}
    return pack_graph(Plan(name, ids[0], specs), {}, CODEC)


def test_what_was_seen_stored_is_not_asked_for(client: Client, keys: Keys) -> None:
    packed, content = graph(600), store(client, keys)
    blobs, size = content.ensure(packed)
    assert (blobs, size) == (len(packed.pages) + 1, content.uploaded_bytes)
    with client.pipeline(transaction=False) as pipe:
        content.ask(pipe, packed)
        assert len(pipe) == 0
    assert content.ensure(packed) == (0, 0)


def test_a_new_process_asks_once_and_uploads_nothing(client: Client, keys: Keys) -> None:
    first, second = graph(600), graph(600, changed=300)
    store(client, keys).ensure(first)
    assert store(client, keys).ensure(first) == (0, 0)
    changing = store(client, keys)
    assert changing.ensure(second)[0] == 1, "the root, with the page that changed"
    assert store(client, keys).ensure(second) == (0, 0), "it reads that the page lies in the manifest"
    third = graph(600, changed=301)
    assert changing.ensure(third)[0] == 1
    content = store(client, keys)
    assert len(load_graph(third.hash, content.get, CODEC, content.get_all).plan.nodes) == 600


def test_a_page_that_was_stored_in_another_manifest_is_not_taken_for_one_of_its_own(client: Client, keys: Keys) -> None:
    """Two graphs that share a page, which was stored with the root of the first one."""
    content = store(client, keys)
    content.ensure(graph(600))
    content.ensure(graph(600, changed=300))
    other = graph(600, changed=300, name="other")
    assert content.ensure(other)[0] == 1
    reader = store(client, keys)
    assert len(load_graph(other.hash, reader.get, CODEC, reader.get_all).plan.nodes) == 600


def test_what_was_forgotten_is_asked_for_and_uploaded_again(client: Client, keys: Keys) -> None:
    packed, content = graph(600), store(client, keys)
    blobs, _ = content.ensure(packed)
    client.delete(*client.keys(f"{keys.prefix}:blob:*"))
    assert content.ensure(packed) == (0, 0), "it relies on what it saw"
    content.seen.forget()
    assert content.ensure(packed)[0] == blobs


def test_an_evicted_page_is_uploaded_again(client: Client, keys: Keys) -> None:
    packed = graph(600)
    store(client, keys).ensure(packed)
    lost = list(packed.pages)[5]
    client.delete(keys.blob(lost))
    reader = store(client, keys)
    with pytest.raises(BlobMissingError, match=f"Blob {lost} .page of graph {packed.hash}."):
        load_graph(packed.hash, reader.get, CODEC, reader.get_all)
    assert store(client, keys).ensure(packed)[0] == 1
    load_graph(packed.hash, reader.get, CODEC, reader.get_all)


def test_pages_come_in_one_round_trip_and_are_kept(client: Client, keys: Keys) -> None:
    packed = graph(600)
    store(client, keys).ensure(packed)
    reader = store(client, keys)
    load_graph(packed.hash, reader.get, CODEC, reader.get_all)
    assert reader.downloads == len(packed.pages) + 1
    load_graph(packed.hash, reader.get, CODEC, reader.get_all)
    assert reader.downloads == len(packed.pages) + 1


def test_a_blob_that_is_relied_on_lives_for_its_ttl(client: Client, keys: Keys) -> None:
    content = store(client, keys)
    packed = graph(3)
    content.ensure(packed)
    assert client.ttl(keys.blob(packed.hash)) >= 1.25 * TTL - 2


def test_names_are_seen_for_a_while_and_the_oldest_are_forgotten_first() -> None:
    now = [100.0]
    seen = SeenNames(10.0, lambda: now[0], most=3)
    seen.note(["a", "b"])
    assert seen.unseen(["a", "b", "c"]) == ["c"]
    now[0] = 109.0
    seen.note(["a", "c"])
    now[0] = 110.0
    assert seen.unseen(["a", "b", "c"]) == ["b"]
    seen.note(["d"])
    assert seen.unseen(["a", "c", "d"]) == []
    seen.note(["e"])
    assert seen.unseen(["a", "c", "d", "e"]) == ["a"]
    seen.forget()
    assert seen.unseen(["c", "d"]) == ["c", "d"]


@task
def base_task() -> int:
    return 1


@task
def one_more() -> int:
    return 2


def added_bytes(server: EmbeddedServer, base: int, added: int) -> list[int]:
    """How many bytes a worker has uploaded after each of so many tasks that it added to a graph of ``base`` tasks."""
    settings = Settings(redis_url=server.url, key_prefix=uuid.uuid4().hex[:8])
    runtime = Runtime(create_app(settings), settings)
    with workflow("growing") as wf:
        chain(*(base_task(task_id=f"n{index}") for index in range(base)))
    tasks = {name: node for name, node in wf.graph.nodes.items() if isinstance(node, Executable)}
    packed = pack_graph(wf.plan(), tasks, runtime.codec)
    runtime.content.ensure(packed)
    run, before = RunRef("r1", packed.hash), runtime.content.uploaded_bytes
    plan = runtime.plan_for(run)
    grown: list[int] = []
    for index in range(added):
        place = Place.of(plan, f"n{index % base}")
        runtime.add(run, plan, extend(place, 1 + index, [one_more(task_id=f"added{index}")], leaves=False))
        grown.append(runtime.content.uploaded_bytes - before)
    assert runtime.content.uploads == len(packed.missing(packed.names)) + added + 1, "one function, and a manifest each"
    return grown


def test_tasks_that_are_added_one_by_one_cost_the_same_each_whatever_the_graph_has(server: EmbeddedServer) -> None:
    grown = added_bytes(server, base=1000, added=1000)
    small = added_bytes(server, base=10, added=1000)
    for number in (100, 500):
        assert grown[2 * number - 1] < 2.1 * grown[number - 1]
    assert grown[-1] < 1.02 * small[-1]
    assert grown[-1] < 500_000


def test_added_tasks_that_the_store_lost_are_stored_again_by_who_saw_them_stored(server: EmbeddedServer) -> None:
    """Another run adds the same: no client has them, so the worker must not rely on what it saw."""
    settings = Settings(redis_url=server.url, key_prefix=uuid.uuid4().hex[:8])
    runtime = Runtime(create_app(settings), settings)
    plan = Plan("p", "a", {"a": NodeSpec("a")})
    packed = pack_graph(plan, {}, CODEC)
    runtime.content.ensure(packed)
    added = extend(Place.of(plan, "a"), 1, [task("more")(lambda: 1)], leaves=False)
    name = runtime.add(runtime.refer("one", packed.hash), plan, added).graph_of("more")
    runtime.client.delete(*(runtime.keys.blob(blob) for blob in runtime.content.names_of(name)))
    runtime.add(runtime.refer("two", packed.hash), plan, added)
    assert runtime.content.absent(runtime.content.names_of(name)) == []


@pytest.mark.parametrize("now", [(b"new" * 8, b"old" * 8), (b"new" * 8,)], ids=["while both are accepted", "after it"])
def test_a_value_that_was_signed_with_an_old_secret_is_stored_again(
    client: Client, keys: Keys, now: tuple[bytes, ...]
) -> None:
    """A worker that knows the new one alone would refuse it."""

    def values(*secrets: bytes) -> ValueStore:
        codec = ValueCodec(("json", "pickle"), secrets)
        return ValueStore(codec, ContentStore(client, keys, codec, TTL, 1 << 20), 1000)

    value = {"words": "x" * 5000}
    old, new, only_new = values(b"old" * 8), values(*now), values(b"new" * 8)
    field = old.pack(value, "it")
    [name] = references(field)
    with pytest.raises(BlobRejectedError, match=name):
        only_new.content.value(name, "it")
    before = client.get(keys.blob(name))
    again = new.pack(value, "it")
    assert [*references(again)] == [name]
    assert new.content.uploads == 1
    assert client.get(keys.blob(name)) != before
    assert only_new.unpack(again, "it") == value
    repeated = values(*now)
    repeated.pack(value, "it")
    assert repeated.content.uploads == 0
