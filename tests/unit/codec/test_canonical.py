from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graflow_celery.codec.canonical import canonical_json, digest
from graflow_celery.errors import SerializationError

any_text = st.text(st.characters(exclude_categories=()))
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)


def test_one_spelling() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()


@given(any_json)
def test_reads_back(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(any_text, st.integers(), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_does_not_matter(value: dict[str, int], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert canonical_json(dict(items)) == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1}, b"x", object(), {(1,): 2}])
def test_what_json_cannot_say(value: object) -> None:
    with pytest.raises(SerializationError, match=r"^Canonical JSON: .*Use None, bool, int"):
        canonical_json(value)


def test_a_cycle() -> None:
    ring: list[object] = []
    ring.append(ring)
    with pytest.raises(SerializationError):
        canonical_json(ring)


def test_digest() -> None:
    assert digest(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert len(digest(b"x" * 1000)) == 32
    assert digest(b"a") != digest(b"b")
