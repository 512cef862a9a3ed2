"""Arrays, frames, tables and containers of them come back exactly, from a field and from the store."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graflow_celery.codec.values import ValueCodec
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import SerializationError
from graflow_celery.redis_backend.client import connect
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.values import INLINE, REFERENCE, ValueStore

PICKLE = ValueCodec(("json", "pickle"), (b"secret",))
MSGPACK = ValueCodec(("json", "msgpack"))
ALL = ValueCodec(("json", "msgpack", "pickle"))
THRESHOLD = 65_536
RNG = np.random.default_rng(7)


@dataclasses.dataclass
class Sample:
    name: str
    data: Any


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


#: Plain numbers, times and texts, which MessagePack takes too: what they are said to be, and how to make one.
PLAIN_ARRAYS: dict[str, Callable[[], Any]] = {
    "empty": lambda: np.empty((0, 3)),
    "0-d": lambda: np.array(3.5),
    "bool": lambda: np.array([True, False]),
    "int8": lambda: np.arange(-5, 5, dtype=np.int8),
    "uint64": lambda: np.array([2**64 - 1], dtype=np.uint64),
    "float16": lambda: np.ones(3, np.float16),
    "longdouble": lambda: np.ones(3, np.longdouble) / 3,
    "nan and -0.0": lambda: np.array([np.nan, -0.0, np.inf]),
    "complex": lambda: np.array([1 + 2j]),
    "big-endian": lambda: np.arange(5, dtype=">i4"),
    "C": lambda: RNG.random((300, 200)),
    "Fortran": lambda: np.asfortranarray(RNG.random((300, 200))),
    "3-d Fortran": lambda: np.asfortranarray(RNG.random((30, 20, 10))),
    "one row": lambda: RNG.random((1, 30_000)),
    "every other": lambda: np.arange(40_000)[::2],
    "backwards": lambda: np.arange(10)[::-1],
    "transposed": lambda: RNG.random((50, 60, 7)).transpose(1, 0, 2),
    "a view in the middle": lambda: np.arange(100_000)[1000:90_000],
    "read-only": lambda: read_only(np.arange(5)),
    "large, read-only": lambda: read_only(np.arange(100_000)),
    "datetime64": lambda: np.array(["2020-01-01", "NaT"], "M8[us]"),
    "timedelta64": lambda: np.array([1, 2], "m8[3D]"),
    "text": lambda: np.array(["a", "bcd", "ä"]),
    "bytes": lambda: np.array([b"a", b"bcd"]),
    "raw": lambda: np.zeros(3, "V5"),
    "texts of no length": lambda: np.zeros(3, "S0"),
}
OTHER_ARRAYS: dict[str, Callable[[], Any]] = {
    "structured": lambda: np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "record": lambda: np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked": lambda: np.ma.array([1, 2, 3], mask=[False, True, False]),
    "objects": lambda: np.array([1, "a", None, (1, 2)], dtype=object),
    "variable text": lambda: np.array(["a", "b" * 300], dtype=np.dtypes.StringDType()),
    "with metadata": lambda: np.zeros(3, np.dtype("i4", metadata={"unit": "m"})),
    "scalar": lambda: np.float32(3.5),
    "datetime scalar": lambda: np.datetime64("2020-01-01"),
}


def check_array(got: Any, given: Any) -> None:
    assert type(got) is type(given)
    assert got.dtype == given.dtype
    assert got.dtype.metadata == given.dtype.metadata
    assert got.shape == given.shape
    if given.dtype.hasobject:
        assert got.tolist() == given.tolist()
    else:
        assert got.tobytes() == given.tobytes()
    if isinstance(given, np.ma.MaskedArray):
        assert got.mask.tolist() == given.mask.tolist()
    if isinstance(given, np.ndarray) and (given.flags.c_contiguous or given.flags.f_contiguous):
        assert got.flags.writeable == given.flags.writeable
        assert got.flags.f_contiguous == given.flags.f_contiguous
        assert got.flags.aligned


def there_and_back(codec: ValueCodec, value: Any) -> Any:
    return codec.decode(codec.encode(value, what="v"), what="v")


@pytest.mark.parametrize("name", [*PLAIN_ARRAYS, *OTHER_ARRAYS])
def test_arrays_by_pickle(name: str) -> None:
    given = (PLAIN_ARRAYS | OTHER_ARRAYS)[name]()
    check_array(there_and_back(PICKLE, given), given)
    nested = there_and_back(PICKLE, {"a": [Sample(name, given)], "b": (1,)})
    check_array(nested["a"][0].data, given)


@pytest.mark.parametrize("name", PLAIN_ARRAYS)
def test_arrays_by_msgpack(name: str) -> None:
    given = PLAIN_ARRAYS[name]()
    assert ALL.open(ALL.encode(given, what="v")).serializer == "msgpack"
    check_array(there_and_back(MSGPACK, given), given)
    check_array(there_and_back(MSGPACK, {"a": [(given, b"x")]})["a"][0][0], given)


@pytest.mark.parametrize("name", OTHER_ARRAYS)
def test_arrays_that_msgpack_cannot_hold_are_refused_not_changed(name: str) -> None:
    with pytest.raises(SerializationError, match="does not come back exactly from json and msgpack"):
        MSGPACK.encode(OTHER_ARRAYS[name](), what="v")
    check_array(there_and_back(ALL, OTHER_ARRAYS[name]()), OTHER_ARRAYS[name]())


def test_one_array_that_is_there_twice_is_one_again() -> None:
    array = np.arange(50_000)
    both = there_and_back(PICKLE, [array, {"again": array}])
    both[0][0] = -1
    assert both[1]["again"][0] == -1
    views = there_and_back(PICKLE, [array[:40_000], array[10_000:]])  # two arrays of their own, as pickle has it
    assert not np.shares_memory(*views)


# --- pandas and Arrow -----------------------------------------------------------------------------------------


FRAMES: dict[str, Callable[[], Any]] = {
    "numbers": lambda: pd.DataFrame(RNG.random((2000, 8)), columns=list("abcdefgh")),
    "mixed": lambda: pd.DataFrame(
        {
            "n": range(3000),
            "text": [f"row {number}" for number in range(3000)],
            "kind": pd.Categorical(["a", "b", None] * 1000, categories=["b", "a", "unused"], ordered=True),
            "at": pd.date_range("2024-03-30", periods=3000, freq="h", tz="Europe/Berlin"),
            "maybe": pd.array([1, None, 3] * 1000, dtype="Int64"),
            "string": pd.array(["x", None, "z"] * 1000, dtype="string"),
            "objects": [(1,), {"a": 1}, None] * 1000,
        }
    ),
    "levels": lambda: pd.DataFrame(
        {"v": range(4)}, index=pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["l", "n"])
    ),
    "empty": pd.DataFrame,
}
SERIES: dict[str, Callable[[], Any]] = {
    "floats": lambda: pd.Series(RNG.random(20_000), name="v"),
    "categories": lambda: pd.Series(pd.Categorical(["a", "b", "a"])),
    "zoned": lambda: pd.Series(pd.date_range("2024-01-01", periods=5, tz="UTC")),
    "periods": lambda: pd.Series(pd.period_range("2024-01", periods=4, freq="M")),
    "sparse": lambda: pd.Series(pd.arrays.SparseArray([0, 0, 1])),
}
TABLES: dict[str, Callable[[], Any]] = {
    "table": lambda: pa.table({"n": range(20_000), "t": [str(number) for number in range(20_000)]}),
    "chunked": lambda: pa.table({"c": pa.chunked_array([[1, 2], [3], []], type=pa.int32())}),
    "dictionary": lambda: pa.table({"d": pa.array(["a", "b", "a", None]).dictionary_encode()}),
    "nested": lambda: pa.table({"l": [[1], [], None], "s": [{"x": 1}, None, {"x": 3}]}),
    "batch": lambda: pa.record_batch({"x": pa.array(RNG.random(30_000))}),
    "array": lambda: pa.array([1, None, 3]),
    "slice": lambda: pa.array(range(50_000))[10_000:40_000],
    "schema metadata": lambda: pa.table({"a": [1]}).replace_schema_metadata({"k": "v"}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    given = FRAMES[name]()
    got = there_and_back(PICKLE, given)
    pd.testing.assert_frame_equal(got, given, check_freq=True, check_flags=True)
    got["new"] = 1  # a frame of its own, which can be written to
    assert "new" not in given


@pytest.mark.parametrize("name", SERIES)
def test_series(name: str) -> None:
    given = SERIES[name]()
    pd.testing.assert_series_equal(there_and_back(PICKLE, [given])[0], given, check_freq=True)


@pytest.mark.parametrize("name", TABLES)
def test_arrow(name: str) -> None:
    given = TABLES[name]()
    got = there_and_back(PICKLE, {"t": given})["t"]
    assert type(got) is type(given)
    assert got.equals(given)
    got.validate(full=True)
    if isinstance(given, pa.Table):
        assert got.schema.equals(given.schema, check_metadata=True)
        assert [column.num_chunks for column in got.columns] == [column.num_chunks for column in given.columns]


# --- containers -----------------------------------------------------------------------------------------------


arrays = st.builds(
    lambda kind, sizes, order: np.arange(int(np.prod(sizes))).reshape(sizes).astype(kind, order=order),
    st.sampled_from(["i1", "u4", "f8", "c16", "?", ">f4", "U3", "M8[s]"]),
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from("CF"),
)
leaves = arrays | st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=50) | st.builds(bytearray)
containers = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def check(got: Any, given: Any) -> None:
    assert type(got) is type(given)
    if isinstance(given, np.ndarray):
        check_array(got, given)
    elif isinstance(given, list):
        assert len(got) == len(given)
        for one, other in zip(got, given, strict=True):
            check(one, other)
    elif isinstance(given, dict):
        assert list(got) == list(given)
        for key in given:
            check(got[key], given[key])
    else:
        assert got == given


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(containers)
def test_containers_of_arrays(value: Any) -> None:
    for codec in (PICKLE, MSGPACK, ALL):
        check(there_and_back(codec, value), value)


# --- the store ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


def store(server: EmbeddedServer, codec: ValueCodec = PICKLE, cache: int = 1 << 26) -> ValueStore:
    content = ContentStore(connect(server.url), Keys("exact"), codec, ttl=60, cache_bytes=cache)
    return ValueStore(codec, content, THRESHOLD)


def test_over_and_under_the_threshold(server: EmbeddedServer) -> None:
    writer, reader = store(server), store(server)
    for size, mark in ((10, INLINE), (THRESHOLD // 8 - 100, INLINE), (THRESHOLD // 8 + 1, REFERENCE)):
        for array in (np.arange(size), read_only(np.arange(size))):
            field = writer.pack(array, "v")
            assert field[:1] == mark
            check_array(reader.unpack(field, "v"), array)
    for value in (b"x" * 100_000, bytearray(100_000), "ä" * 100_000, ["x" * 100_000], {"a": {"b": b"\0" * 100_000}}):
        field = writer.pack(value, "v")
        assert field[:1] == REFERENCE
        check(reader.unpack(field, "v"), value)
    for name, made in (FRAMES | SERIES | TABLES).items():
        value = made()
        assert reader.unpack(writer.pack(value, name), name).equals(value), name


def test_two_consumers_do_not_see_each_others_changes(server: EmbeddedServer) -> None:
    values = store(server)
    for value in (np.arange(50_000), {"a": [np.zeros(50_000)], "n": list(range(50_000))}, bytearray(100_000)):
        field = values.pack(value, "v")
        first, second = values.unpack(field, "v"), values.unpack(field, "v")
        for found in (first["a"][0], first["n"]) if isinstance(first, dict) else (first,):
            found[7] = 99
        check(second, value)
        check(values.unpack(field, "v"), value)
    frozen = values.pack(read_only(np.arange(100_000)), "v")
    first, second = values.unpack(frozen, "v"), values.unpack(frozen, "v")
    assert np.shares_memory(first, second), "what nobody can write to is there once"
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        first.flags.writeable = True


def peak(action: Callable[[], Any]) -> tuple[int, Any]:
    """The most bytes that an action had at a time beyond what there was, and what it returned."""
    tracemalloc.start()
    try:
        made = action()
        return tracemalloc.get_traced_memory()[1], made
    finally:
        tracemalloc.stop()


COPIES: dict[str, tuple[ValueCodec, Callable[[], Any], float, float]] = {
    "array": (PICKLE, lambda: np.random.default_rng(1).random(1_250_000), 2.1, 1.1),
    "array that is read-only": (PICKLE, lambda: read_only(np.random.default_rng(1).random(1_250_000)), 2.1, 0.1),
    "array by MessagePack": (MSGPACK, lambda: np.random.default_rng(1).random(1_250_000), 4.1, 2.2),
    "bytes": (PICKLE, lambda: np.random.default_rng(1).bytes(10_000_000), 1.1, 1.1),
}


@pytest.mark.parametrize("kind", COPIES)
def test_ten_megabytes_are_not_copied_more_often_than_needed(server: EmbeddedServer, kind: str) -> None:
    """In units of the value. Written are a payload and its blob; of a blob that was read, a copy that may be changed.

    What redis-py needs to receive a blob, up to three times its size, comes on top for that moment.
    """
    codec, make, writing, reading = COPIES[kind]
    value = make()
    used, field = peak(lambda: store(server, codec).pack(value, "v"))
    assert used <= writing * 10e6, f"writing took {used / 10e6:.2f} times the value"
    used, got = peak(lambda: store(server, codec).unpack(field, "v"))
    assert used <= (reading + 3.2) * 10e6, f"receiving took {used / 10e6:.2f} times the value"
    name = codec.referred(field[1:], what="v")
    [blob] = store(server, codec).content.sealed([name], "v")
    used, got = peak(lambda: codec.read(codec.open(blob, what="v", name=name), what="v"))
    assert used <= reading * 10e6, f"reading took {used / 10e6:.2f} times the value"
    check(got, value)


# --- without NumPy --------------------------------------------------------------------------------------------


def test_nothing_of_ours_imports_them() -> None:
    program = (
        "import sys, pkgutil, importlib\n"
        "import graflow_celery, graflow_celery.celery, graflow_celery.redis_backend.values\n"
        "from graflow_celery.codec.values import ValueCodec\n"
        "codec = ValueCodec(('json', 'msgpack', 'pickle'))\n"
        "assert codec.decode(codec.encode({'a': (1, b'x', {2})}, what='v'), what='v') == {'a': (1, b'x', {2})}\n"
        "found = {'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
