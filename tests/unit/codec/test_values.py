"""Values there and back, and bytes that must not come back."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import math
import pickle
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import BlobRejectedError, ConfigError, SerializationError
from tests.unit.codec.modules import Load, loader

BOTH = ValueCodec(("json", "pickle"))
SIGNED = ValueCodec(("json", "pickle"), (b"new key", b"old key"))
CODECS = {"plain": BOTH, "signed": SIGNED, "pickle alone": ValueCodec(("pickle",))}


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int


class Text(str):
    __slots__ = ()


any_text = st.text(st.characters(exclude_categories=()))
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | any_text
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
hashable = st.recursive(atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
values = st.recursive(
    hashable,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(any_text, inner, max_size=4)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.tuples(inner)
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """The value with its types, all the way down, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return [type(value).__name__, [(shape(key), shape(item)) for key, item in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(shape, value)]
    if isinstance(value, set | frozenset):
        return [type(value).__name__, sorted(repr(shape(item)) for item in value)]
    return type(value).__name__, repr(value)


@pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))
@given(values)
def test_values_come_back_exactly(codec: ValueCodec, value: object) -> None:
    assert shape(codec.decode(codec.encode(value, what="v"), what="v")) == shape(value)


JSON_VALUES: list[object] = [
    None, True, 0, -1, 2**2000, 1.5, -0.0, 1e308, "", "ä\udcff\ud83d\ude00", [], {}, [1, [2.0, {"a": None}]],
    {"": {"b": [True, False]}}, [[]] * 3,
]  # fmt: skip
OTHER_VALUES: list[object] = [
    (), (1,), [(1,)], {1: 2}, {"a": {None: 1}}, {1, 2}, math.inf, [math.nan], Colour.RED, {"a": Colour.RED}, Text("x"),
    {Text("k"): 1}, Point(1), collections.OrderedDict(a=1), collections.Counter("a"), bytearray(b"x"), 1j, 10**5000,
    [b"x"],
]  # fmt: skip


def ids(values: list[object]) -> list[str]:
    return [f"{number}-{type(value).__name__}" for number, value in enumerate(values)]


@pytest.mark.parametrize("value", JSON_VALUES, ids=ids(JSON_VALUES))
def test_json_where_it_is_exact(value: object) -> None:
    data = BOTH.encode(value, what="v")
    assert BOTH.open(data)[0] == "json"
    assert shape(ValueCodec(("json",)).decode(data, what="v")) == shape(value)


@pytest.mark.parametrize("value", OTHER_VALUES, ids=ids(OTHER_VALUES))
def test_pickle_where_json_is_not(value: object) -> None:
    data = BOTH.encode(value, what="v")
    assert BOTH.open(data)[0] == "pickle"
    if value == value and not isinstance(value, list):
        assert BOTH.decode(data, what="v") == value
    with pytest.raises(SerializationError) as caught:
        ValueCodec(("json",)).encode(value, what="result of task 'x'")
    assert str(caught.value).startswith("Result of task 'x': a value of type '")
    assert "add pickle to serializers" in str(caught.value)


def test_the_order_of_a_dict_is_kept() -> None:
    assert list(BOTH.decode(BOTH.encode({"b": 1, "a": 2}, what="v"), what="v")) == ["b", "a"]  # type: ignore[call-overload]


def test_bytes_go_as_they_are() -> None:
    data = ValueCodec(("json",)).encode(b"\x00" * 100, what="v")
    assert len(data) == 104
    assert ValueCodec(("json",)).decode(data, what="v") == b"\x00" * 100


def test_deep_and_cyclic_values_are_pickled() -> None:
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    ring: dict[str, Any] = {}
    ring["self"] = [ring]
    assert BOTH.decode(BOTH.encode(deep, what="v"), what="v") == deep
    again: Any = BOTH.decode(BOTH.encode(ring, what="v"), what="v")
    assert again["self"][0] is again


def test_shared_parts_do_not_cost_twice() -> None:
    shared: list[Any] = []
    for _ in range(12):
        shared = [shared, shared]
    assert BOTH.decode(BOTH.encode(shared, what="v"), what="v") == shared


# --- what cannot be sent ------------------------------------------------------------------------------------


@pytest.fixture
def unsendable() -> Iterator[dict[str, object]]:
    with socket.socket() as one, open("/dev/null", "wb") as file:
        yield {
            "_thread.lock": threading.Lock(),
            "generator": (x for x in range(0)),
            "socket.socket": one,
            "_io.BufferedWriter": file,
            "list": [threading.Lock()],
        }


def test_what_cannot_be_sent_is_named(unsendable: dict[str, object]) -> None:
    for type_name, value in unsendable.items():
        with pytest.raises(SerializationError) as caught:
            BOTH.encode(value, what="result of task 'x'")
        text = str(caught.value)
        assert text.startswith(f"Result of task 'x': a value of type '{type_name}' cannot be sent to another process (")
        assert "open locks, files and connections inside the task" in text
        assert caught.value.what == "result of task 'x'"


def test_a_value_whose_code_raises() -> None:
    class Bad:
        def __reduce__(self) -> Any:
            raise KeyError("state")

    with pytest.raises(SerializationError, match="Bad' cannot be sent"):
        BOTH.encode(Bad(), what="key 'k'")


# --- what cannot be rebuilt ---------------------------------------------------------------------------------


def test_a_type_that_is_not_here(tmp_path: Any) -> None:
    with loader(tmp_path) as load:
        loaded: Load = load
        data = BOTH.encode(loaded("cv_points", "class P: pass").P(), what="v")
        loaded("cv_points", "")
        with pytest.raises(SerializationError, match=r"^Key 'k': it cannot be rebuilt here: .*Install the module"):
            BOTH.decode(data, what="key 'k'")
        (tmp_path / "cv_points.py").unlink()
    with pytest.raises(SerializationError, match="No module named 'cv_points'"):
        BOTH.decode(data, what="key 'k'")


def test_a_type_whose_code_raises() -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return (int, ("x",))

    with pytest.raises(SerializationError, match="cannot be rebuilt here: ValueError: invalid literal"):
        BOTH.decode(BOTH.encode(Bad(), what="v"), what="v")


# --- what is refused ----------------------------------------------------------------------------------------

_marked = threading.Event()


def _mark() -> None:
    _marked.set()


class Marker:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> Any:
        return (_mark, ())


@pytest.fixture
def mark() -> Iterator[threading.Event]:
    _marked.clear()
    yield _marked
    _marked.clear()


def test_the_marker_marks(mark: threading.Event) -> None:
    SIGNED.decode(SIGNED.encode(Marker(), what="v"), what="v")
    assert mark.is_set()


def refused(codec: ValueCodec, data: bytes) -> str:
    with pytest.raises(BlobRejectedError) as caught:
        codec.decode(data, what="key 'k'")
    assert not _marked.is_set()
    return str(caught.value)


@pytest.mark.usefixtures("mark")
def test_unsigned_content_is_refused_where_a_secret_is_set() -> None:
    assert refused(SIGNED, BOTH.encode(Marker(), what="v")).startswith("Key 'k': It is not signed")
    assert "GRAFLOW_CELERY_SECRET_KEY" in refused(SIGNED, BOTH.encode(1, what="v"))


@pytest.mark.usefixtures("mark")
def test_content_signed_with_another_secret_is_refused() -> None:
    other = ValueCodec(("json", "pickle"), (b"another",))
    assert "signature of it is wrong" in refused(SIGNED, other.encode(Marker(), what="v"))


def test_a_secret_is_replaced_step_by_step() -> None:
    old = ValueCodec(("json",), (b"old key",))
    assert SIGNED.decode(old.encode([1], what="v"), what="v") == [1]
    assert ValueCodec(("json",), (b"new key",)).decode(SIGNED.encode([1], what="v"), what="v") == [1]
    assert "wrong" in refused(old, SIGNED.encode([1], what="v"))


def test_signed_content_is_read_where_no_secret_is_set() -> None:
    assert BOTH.decode(SIGNED.encode([1], what="v"), what="v") == [1]


@pytest.mark.usefixtures("mark")
def test_a_serializer_that_is_not_allowed_is_refused() -> None:
    signed_json = ValueCodec(("json",), (b"new key",))
    text = refused(signed_json, SIGNED.encode(Marker(), what="v"))
    assert text == "Key 'k': Setting serializers (json) does not allow pickle. It was not decoded."
    assert "does not allow json" in refused(ValueCodec(("pickle",)), BOTH.encode(1, what="v"))


@pytest.mark.usefixtures("mark")
def test_every_changed_bit_is_refused() -> None:
    data = SIGNED.encode(Marker(), what="v")
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            refused(SIGNED, bytes(changed))


@pytest.mark.usefixtures("mark")
def test_every_cut_is_refused() -> None:
    data = SIGNED.encode(Marker(), what="v")
    for length in range(len(data)):
        refused(SIGNED, data[:length])
        refused(SIGNED, data[-length:] if length else b"")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(noise: bytes) -> None:
    refused(SIGNED, noise)
    refused(SIGNED, b"\xb7\x02\x03\x04" + noise)
    refused(SIGNED, b"\xb7\x02\x03\x00" + noise + pickle.dumps(Marker()))


@given(st.data())
def test_changed_content_is_refused(data: st.DataObject) -> None:
    blob = bytearray(SIGNED.encode([Marker(), "x" * 20], what="v"))
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(blob)))
        end = data.draw(st.integers(start, min(len(blob), start + 20)))
        blob[start:end] = data.draw(st.binary(max_size=20))
    if bytes(blob) != SIGNED.encode([Marker(), "x" * 20], what="v"):
        refused(SIGNED, bytes(blob))


@given(st.data())
def test_changed_json_without_a_secret_gives_a_value_or_is_refused(data: st.DataObject) -> None:
    codec = ValueCodec(("json",))
    blob = bytearray(codec.encode({"a": [1, "x", None]}, what="v"))
    blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    del blob[data.draw(st.integers(1, len(blob))) :]
    with contextlib.suppress(BlobRejectedError):
        codec.decode(bytes(blob), what="v")


def test_a_damaged_pickle_is_refused() -> None:
    assert "damaged" in refused(BOTH, BOTH.seal(b"\x80", "pickle"))
    assert "damaged" in refused(BOTH, BOTH.seal(b"", "pickle"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no content of graflow_celery"),
        (b"hello world", "no content of graflow_celery"),
        (b"\xb7\x01\x01\x00", "format 1 and this process reads 2"),
        (b"\xb7\x02\x09\x00", "unknown serializer 9"),
        (b"\xb7\x02\x01\x04ab", "cut short"),
        (b"\xb7\x02\x01\x01ab", "a blob, or of another form"),
    ],
)
def test_other_bytes_are_refused(data: bytes, said: str) -> None:
    assert said in refused(BOTH, data)


# --- seal and open, settings --------------------------------------------------------------------------------


@pytest.mark.parametrize("serializer", ["json", "pickle", "raw"])
def test_a_sealed_payload_is_opened(serializer: str) -> None:
    for codec in (BOTH, SIGNED):
        assert codec.open(codec.seal(b"payload", serializer)) == (serializer, b"payload")


def test_only_allowed_serializers_are_sealed() -> None:
    with pytest.raises(SerializationError, match="does not allow pickle"):
        ValueCodec(("json",)).seal(b"x", "pickle")
    assert ValueCodec(("json",)).seal(b"x", "raw")


@pytest.mark.parametrize("serializers", [(), ("yaml",), ("json", "xml")])
def test_serializers_that_do_not_exist(serializers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^Setting serializers: "):
        ValueCodec(serializers)


def test_an_empty_secret() -> None:
    with pytest.raises(ConfigError, match="secret_key: it is empty"):
        ValueCodec(("json",), (b"key", b""))


def test_secrets_are_not_shown() -> None:
    assert "key" not in repr(SIGNED)
