"""A graph as a root and pages: what is uploaded of it, what comes back, and what versions share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graflow_celery import ParallelGroup, WorkflowContext, chain, task, workflow
from graflow_celery.codec.canonical import digest
from graflow_celery.codec.envelope import Content
from graflow_celery.codec.manifest import PackedGraph, blob_names, load_graph, pack_graph
from graflow_celery.codec.pages import SHARE
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.expr import Executable
from graflow_celery.core.plan import MapSpec, NodeSpec, Owner, Plan, TaskOptions
from graflow_celery.core.policy import AtLeastNGroupPolicy, PriorityPolicy
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from tests.property.shapes import Workflow, build, workflows

CODEC = ValueCodec(("json", "pickle"))


class Store(dict[str, bytes]):
    """Blobs by name, as a content store has them."""

    def absent(self, packed: PackedGraph) -> set[str]:
        return {name for name in packed.names if name not in self}

    def upload(self, packed: PackedGraph) -> dict[str, bytes]:
        """What a client uploads."""
        made = packed.missing(self.absent(packed), self.get(packed.hash))
        blobs = {name: blob() for name, blob in made.items()}
        self.update(blobs)
        return blobs

    def fetch(self, name: str, what: str) -> Content:
        if name not in self:
            raise BlobMissingError(name, what)
        return CODEC.open(self[name], what=what, name=name)

    def plan(self, packed: PackedGraph) -> Plan:
        return load_graph(packed.hash, self.fetch, CODEC).plan


def packed_of(wf: WorkflowContext) -> PackedGraph:
    plan = wf.plan()
    tasks = {name: node for name, node in wf.graph.nodes.items() if isinstance(node, Executable)}
    return pack_graph(plan, tasks, CODEC)


def of_functions(values: Mapping[str, int]) -> WorkflowContext:
    """A chain of tasks each of which has a function of its own."""

    def made(name: str, value: int) -> Executable:
        @task(id=name)
        def number() -> int:
            return value

        return number

    with workflow("numbers") as wf:
        chain(*(made(name, value) for name, value in values.items()))
    return wf


NUMBERS = {f"n{index}": index for index in range(1000)}


def chain_of(ids: list[str]) -> Plan:
    following = zip(ids, [(target,) for target in ids[1:]] + [()], strict=True)
    return Plan("p", ids[0], {name: NodeSpec(name, successors=then) for name, then in following})


@settings(max_examples=60, deadline=None)
@given(workflows(timeouts=True))
def test_what_is_packed_comes_back(shape: Workflow) -> None:
    plan = build(shape)
    packed, store = pack_graph(plan, {}, CODEC), Store()
    store.upload(packed)
    loaded = load_graph(packed.hash, store.fetch, CODEC).plan
    assert loaded == plan
    assert list(loaded.nodes) == list(plan.nodes), "in the order in which they were written"


def test_every_field_of_a_node_comes_back() -> None:
    retry = TaskOptions("gpu", 3, 1.5, 1.0, 2, RetryPolicy(2, jitter=True), 4, "fail", 5)
    nodes = [
        NodeSpec("a", ("g",), ("a",), 2, options=retry),
        NodeSpec("g", entries=("m", "n"), exits=("m", "o"), timeout=3.0, policy=AtLeastNGroupPolicy(1)),
        NodeSpec("m", group="g", exit_index=0),
        NodeSpec("n", ("o",), group="g"),
        NodeSpec("o", group="g", exit_index=1, needs=1),
        NodeSpec("x", map=MapSpec("a", 3), owner=Owner("a", 2, "graph", False, True)),
        NodeSpec("y", group="elsewhere", exit_index=4),
        NodeSpec("z", group="g", exit_index=7),
        NodeSpec("empty", entries=("y",)),
        NodeSpec("\ud800ü"),
    ]
    plan = Plan("p", "a", {node.id: node for node in nodes}, scheduling=PriorityPolicy())
    packed, store = pack_graph(plan, {}, CODEC), Store()
    assert list(store.upload(packed)) == [packed.hash]
    assert store.plan(packed) == plan


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_is_whole_whatever_the_store_had_of_it(data: st.DataObject) -> None:
    plan = chain_of([f"n{index}" for index in range(data.draw(st.integers(1, 600), "nodes"))])
    packed, store = pack_graph(plan, {}, CODEC), Store()
    named = [name for name in packed.names if name in packed.pages]
    before = data.draw(st.sets(st.sampled_from(named)) if named else st.just(set()), "stored before")
    whole = packed.missing(packed.names)
    store.update({name: whole[name]() for name in before if name in whole})
    store.upload(packed)
    assert store.plan(packed) == plan
    evicted = data.draw(st.sets(st.sampled_from(sorted(store))), "evicted then")
    for name in evicted:
        del store[name]
    store.upload(packed)
    assert store.plan(packed) == plan
    assert not store.upload(packed), "the same again uploads nothing"


def test_a_small_graph_is_one_blob() -> None:
    with workflow("small") as wf:
        ParallelGroup([number(task_id=f"m{index}") for index in range(50)], name="members")
    store = Store()
    assert len(store.upload(packed_of(wf))) == 2, "one function and the manifest"
    assert not store.upload(packed_of(wf))


@task
def number() -> int:
    return 1


def test_one_changed_task_of_a_thousand_uploads_two_blobs_and_under_two_percent() -> None:
    store = Store()
    full = store.upload(packed_of(of_functions(NUMBERS)))
    assert not store.upload(packed_of(of_functions(NUMBERS)))
    for changed in ("n0", "n500", "n999"):
        second = packed_of(of_functions(NUMBERS | {changed: -1}))
        fresh = Store(store)
        uploaded = fresh.upload(second)
        assert len(uploaded) == 2
        assert second.hash in uploaded
        assert size(uploaded) < 0.02 * size(full)
        assert len(fresh.plan(second).nodes) == 1000
        assert not fresh.upload(packed_of(of_functions(NUMBERS | {changed: -1}))), "its page lies in the manifest"


def test_versions_that_have_few_pages_in_common_upload_pages() -> None:
    plan = chain_of([f"n{index}" for index in range(1000)])
    store, packed = Store(), pack_graph(plan, {}, CODEC)
    store.upload(packed)
    changed = {
        name: replace(node, needs=node.needs + (index % 30 == 0))
        for index, (name, node) in enumerate(plan.nodes.items())
    }
    other = pack_graph(replace(plan, nodes=changed), {}, CODEC)
    lacking = store.absent(other) - {other.hash}
    assert len(lacking) * SHARE > len(other.pages)
    assert store.upload(other).keys() == {other.hash, *lacking}
    assert store.plan(other).nodes == changed


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999))
def test_a_changed_node_changes_its_page_alone(index: int) -> None:
    ids = [f"n{number}" for number in range(1000)]
    plan = chain_of(ids)
    nodes = {**plan.nodes, ids[index]: replace(plan.nodes[ids[index]], needs=7)}
    assert len(new_pages(plan, replace(plan, nodes=nodes))) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 999), st.text(min_size=1, max_size=5))
def test_a_node_that_comes_or_goes_leaves_other_pages_as_they_were(index: int, name: str) -> None:
    ids = [f"n{number}" for number in range(1000)]
    plan, more = chain_of(ids), chain_of([*ids[:index], f"new {name}", *ids[index:]])
    assert len(new_pages(plan, more)) <= 4
    assert len(new_pages(more, plan)) <= 4


def test_most_nodes_that_come_or_go_change_one_page() -> None:
    ids = [f"n{number}" for number in range(1000)]
    plan = chain_of(ids)
    counts = [len(new_pages(plan, chain_of([*ids[:at], f"new{at}", *ids[at:]]))) for at in range(5, 1000, 50)]
    counts += [len(new_pages(plan, chain_of([*ids[:at], *ids[at + 1 :]]))) for at in range(5, 1000, 50)]
    assert sum(counts) <= 1.5 * len(counts)


def test_a_member_of_a_large_group_that_comes_or_goes_changes_its_page_and_the_groups() -> None:
    def members(ids: list[str]) -> Plan:
        with workflow("members") as wf:
            ParallelGroup([number(task_id=name) for name in ids], name="members")
        return wf.plan()

    ids = [f"m{index}" for index in range(1000)]
    plan = members(ids)
    sizes = sorted(len(page) for page in pack_graph(plan, {}, CODEC).pages.values())
    assert sizes[-1] > 5000 > 3 * sizes[-2], "the group has a page of its own"
    assert len(new_pages(plan, members([*ids[:400], "other", *ids[400:]]))) <= 3
    assert len(new_pages(plan, members([*ids[:400], *ids[401:]]))) <= 3


def new_pages(before: Plan, after: Plan) -> set[str]:
    return pack_graph(after, {}, CODEC).pages.keys() - pack_graph(before, {}, CODEC).pages.keys()


def size(blobs: Mapping[str, bytes]) -> int:
    return sum(map(len, blobs.values()))


def big() -> tuple[PackedGraph, Store]:
    packed, store = pack_graph(chain_of([f"n{index}" for index in range(1000)]), {}, CODEC), Store()
    store.upload(packed)
    assert len(packed.pages) > 20
    return packed, store


def forged(store: Store, name: str, payload: bytes) -> None:
    store[name] = CODEC.seal(payload, "json", name)


def test_the_hash_says_what_the_graph_is_and_not_how_it_is_stored() -> None:
    packed, store = big()
    full = packed.missing(packed.names)
    assert full.keys() == {packed.hash, *packed.pages}
    one = next(iter(packed.pages))
    assert packed.missing({packed.hash, one}).keys() == {packed.hash}
    store[packed.hash] = packed.missing({packed.hash, one})[packed.hash]()
    del store[one]
    assert store.plan(packed) == Store(store | {name: blob() for name, blob in full.items()}).plan(packed)


def test_a_page_that_was_evicted_is_uploaded_again_or_named() -> None:
    packed, store = big()
    lost = list(packed.pages)[3]
    del store[lost]
    with pytest.raises(BlobMissingError, match=f"Blob {lost} \\(page of graph {packed.hash}\\)"):
        store.plan(packed)
    assert store.upload(packed).keys() == {lost}
    store.plan(packed)


@pytest.mark.parametrize("where", ["root", "page", "inlined page", "strange page", "page of another graph"])
def test_what_was_changed_is_refused(where: str) -> None:
    packed, store = big()
    first, second = list(packed.pages)[:2]
    match where:
        case "root":
            forged(store, packed.hash, packed.root.replace(b'"n0"', b'"n1"', 1))
        case "page":
            forged(store, first, packed.pages[first].replace(b"n", b"m", 1))
        case "inlined page":
            forged(store, packed.hash, packed.root + b"\n" + packed.pages[first].replace(b"n", b"m", 1))
        case "strange page":
            forged(store, packed.hash, packed.root + b"\n[]")
        case _:
            forged(store, first, packed.pages[second])
    name = first if where in ("page", "page of another graph") else packed.hash
    with pytest.raises(BlobRejectedError, match=f"{name} .*{packed.hash}.* is not what was stored"):
        store.plan(packed)


def test_another_version_is_refused() -> None:
    packed, store = big()
    root = packed.root.replace(b'"version":3', b'"version":9')
    name = digest(root)
    forged(store, name, root)
    with pytest.raises(BlobRejectedError, match=rf"Blob {name} \(graph {name}\) has version 9; this worker reads 3"):
        load_graph(name, store.fetch, CODEC)


def test_a_manifest_that_cannot_be_read_does_not_keep_a_client_from_uploading_the_rest() -> None:
    packed, store = big()
    lost = next(iter(packed.pages))
    del store[lost]
    store[packed.hash] = b"damaged"
    assert store.upload(packed).keys() == {lost}


def test_all_blobs_of_a_graph_are_named() -> None:
    packed, store = packed_of(of_functions({f"n{index}": index for index in range(200)})), Store()
    uploaded = store.upload(packed)
    assert sorted(blob_names(packed.hash, store.fetch, CODEC)) == sorted(uploaded)
    assert len(uploaded) > 205


def test_pages_are_fetched_at_once() -> None:
    packed, store = big()
    asked: list[Collection[str]] = []

    def fetch_all(names: Collection[str], what: str) -> list[Content]:
        asked.append(names)
        return [store.fetch(name, what) for name in names]

    load_graph(packed.hash, store.fetch, CODEC, fetch_all)
    assert [list(names) for names in asked] == [list(packed.pages)]
    assert sorted(blob_names(packed.hash, store.fetch, CODEC, fetch_all)) == sorted(store)
