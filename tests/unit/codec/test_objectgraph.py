from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from graflow_celery.codec.objectgraph import Vertex, join, vertex_digests

graphs = st.integers(1, 12).flatmap(
    lambda size: st.lists(
        st.builds(
            Vertex,
            st.sampled_from([b"a", b"b"]),
            st.lists(st.one_of(st.integers(0, size - 1), st.sampled_from([b"x", b"y"])), max_size=4),
            st.booleans(),
        ),
        min_size=size,
        max_size=size,
    )
)


@given(graphs, st.randoms(use_true_random=False))
def test_the_numbers_of_vertices_do_not_matter(graph: list[Vertex], random: object) -> None:
    order = list(range(len(graph)))
    random.shuffle(order)  # type: ignore[attr-defined]
    renumbered = [
        Vertex(
            graph[old].label,
            [order.index(child) if isinstance(child, int) else child for child in graph[old].children],
            graph[old].ordered,
        )
        for old in order
    ]
    before, after = vertex_digests(graph), vertex_digests(renumbered)
    assert [before[old] for old in order] == after


@given(graphs, st.randoms(use_true_random=False))
def test_the_order_of_unordered_children_does_not_matter(graph: list[Vertex], random: object) -> None:
    shuffled = []
    for vertex in graph:
        children = list(vertex.children)
        if not vertex.ordered:
            random.shuffle(children)  # type: ignore[attr-defined]
        shuffled.append(Vertex(vertex.label, children, vertex.ordered))
    assert vertex_digests(graph) == vertex_digests(shuffled)


@given(graphs)
def test_the_same_graph_twice_beside_itself_tells_nothing_new(graph: list[Vertex]) -> None:
    size = len(graph)
    again = [Vertex(v.label, [c + size if isinstance(c, int) else c for c in v.children], v.ordered) for v in graph]
    assert vertex_digests(graph + again) == vertex_digests(graph) * 2


@given(graphs, st.data())
def test_what_leads_to_a_changed_vertex_changes_and_nothing_else(graph: list[Vertex], data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, len(graph) - 1))
    leading = {changed}
    while more := {n for n, v in enumerate(graph) if n not in leading and not leading.isdisjoint(v.children)}:
        leading |= more
    other = list(graph)
    other[changed] = Vertex(b"c", graph[changed].children, graph[changed].ordered)
    before, after = vertex_digests(graph), vertex_digests(other)
    assert {n for n in range(len(graph)) if before[n] != after[n]} == leading


def test_a_label_deep_in_a_cycle_counts() -> None:
    def ring(labels: bytes) -> bytes:
        size = len(labels)
        vertices = [Vertex(labels[n : n + 1], [(n + 1) % size], True) for n in range(size)]
        return vertex_digests(vertices)[0]

    assert ring(b"aaaaaaab") == ring(b"aaaaaaab")
    assert len({ring(b"aaaaaaab"), ring(b"aaaaaaba"), ring(b"aaaaaabb"), ring(b"aaaaaaac")}) == 4


@given(st.lists(st.one_of(st.text(), st.binary(), st.integers(0, 9)), max_size=4), st.data())
def test_joined_parts_cannot_be_mistaken(parts: list[str | bytes | int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.one_of(st.text(), st.binary(), st.integers(0, 9)), max_size=4))
    assert (join(*parts) == join(*other)) == (parts == other)
