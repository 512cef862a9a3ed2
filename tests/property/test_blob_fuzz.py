"""Ten thousand ways in which content can be wrong: none is decoded, each is an error that names it.

The payloads leave a mark when they are unpickled. Where a secret is set every case is refused. Without one the digest
of a blob tells damage, and so do the checks of form; but nothing tells an attacker's blob from ours, so of that nothing
is asked here. Short values without a secret have no digest: damage to JSON may read as another value, and a damaged
pickle may do what its bytes say; what is asked of them is a clear error or a value, and never another exception.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import pickle
import random
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from graflow_celery.codec.canonical import digest
from graflow_celery.codec.envelope import Content
from graflow_celery.codec.manifest import load_graph, pack_graph
from graflow_celery.codec.values import ValueCodec, content_name
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.errors import BlobRejectedError, SerializationError
from graflow_celery.redis_backend.values import INLINE, LIST, REFERENCE, ValueStore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_unpickled = threading.Event()
CASES: Counter[str] = Counter()
ALL = ("json", "msgpack", "pickle")
LIMIT = 1 << 20
SIGNED = ValueCodec(ALL, (b"new", b"old"), LIMIT)
PLAIN = ValueCodec(ALL, (), LIMIT)
OTHER = ValueCodec(ALL, (b"another",), LIMIT)
HEAD = 64  # of a blob, before its signature
SIGNATURE = 32


def _mark() -> None:
    _unpickled.set()


class Marker:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> Any:
        return (_mark, ())


MARKED = pickle.dumps([Marker(), "x" * 60])
LARGE = pickle.dumps([Marker(), "abc" * 3000])
NAME, ANOTHER = digest(MARKED), digest(LARGE)


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    _unpickled.clear()
    yield
    assert not _unpickled.is_set(), "something was unpickled"


def blob(codec: ValueCodec, payload: bytes = MARKED, name: str = NAME, serializer: str = "pickle") -> bytes:
    return codec.seal(payload, serializer, name)


def refused(kind: str, read: Callable[[], object], names: str) -> str:
    CASES[kind] += 1
    with pytest.raises(BlobRejectedError) as caught:
        read()
    assert names.lower() in str(caught.value).lower(), kind
    assert not _unpickled.is_set(), kind
    return str(caught.value)


def read_blob(codec: ValueCodec, data: bytes, name: str = NAME) -> object:
    return codec.read(codec.open(data, what="result of task 'x'", name=name), what="v")


def refused_blob(kind: str, codec: ValueCodec, data: bytes, name: str = NAME) -> str:
    return refused(kind, lambda: read_blob(codec, data, name), f"blob {name} (result of task 'x')")


def refused_value(kind: str, codec: ValueCodec, data: bytes) -> str:
    return refused(kind, lambda: codec.decode(data, what="channel key 'k'"), "channel key 'k'")


def damaged(data: bytes, choice: random.Random) -> bytes:
    """``data`` with one thing wrong: a bit, a byte, a slice gone, doubled, moved or made of noise; cut; or longer."""
    made = bytearray(data)
    start = choice.randrange(len(made))
    end = min(len(made), start + choice.randint(1, 24))
    what = choice.randrange(9)
    if what <= 1:
        made[start] ^= 1 << choice.randrange(8)
    elif what == 2:
        made[start] = choice.randrange(256)
    elif what == 3:
        del made[start:end]
    elif what == 4:
        made[start:start] = made[start:end]
    elif what == 5:
        made[start:end] = choice.randbytes(end - start)
    elif what == 6:
        made += choice.randbytes(choice.randint(1, 24))
    elif what == 7:
        del made[start:]
    else:
        piece = bytes(made[start:end])
        del made[start:end]
        place = choice.randrange(len(made) + 1)
        made[place:place] = piece
    return bytes(made)


def changes(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` damaged copies, none of which is the original."""
    choice = random.Random(seed)
    different = (made for made in (damaged(data, choice) for _ in itertools.count()) if made != data)
    return itertools.islice(different, count)


def test_the_marker_marks() -> None:
    read_blob(SIGNED, blob(SIGNED))
    assert _unpickled.is_set()
    _unpickled.clear()
    PLAIN.decode(PLAIN.seal(MARKED, "pickle"), what="v")
    assert _unpickled.is_set()
    _unpickled.clear()


# --- damage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [MARKED, LARGE], ids=["as it is", "compressed"])
@pytest.mark.parametrize("codec", [SIGNED, PLAIN], ids=["signed", "plain"])
def test_blobs(codec: ValueCodec, payload: bytes) -> None:
    data = blob(codec, payload)
    for number, changed in enumerate(changes(data, 1200, seed=len(payload))):
        refused_blob(f"blob damaged {number}", codec, changed)
    for position, bit in itertools.product(range(HEAD + SIGNATURE), range(8)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << bit
        refused_blob(f"bit {bit} of byte {position} of the head", codec, bytes(flipped))


def test_values_in_place() -> None:
    for number, changed in enumerate(changes(SIGNED.seal(MARKED, "pickle"), 1500, seed=1)):
        refused_value(f"value damaged {number}", SIGNED, changed)


def test_manifests() -> None:
    plan = Plan("wf", "a", {"a": NodeSpec("a", successors=("b",)), "b": NodeSpec("b")})
    for codec in (SIGNED, PLAIN):
        packed = pack_graph(plan, {}, codec)
        data, name = packed.missing(packed.names)[packed.hash](), packed.hash

        def load(changed: bytes, codec: ValueCodec = codec, graph: str = name) -> object:
            return load_graph(graph, lambda found, what: codec.open(changed, what=what, name=found), codec).plan

        assert load(data) == plan
        for number, changed in enumerate(changes(data, 600, seed=2)):
            refused(f"manifest damaged {number}", partial(load, changed), f"blob {name} (graph {name})")


class Blobs:
    """What a ValueStore asks of the content store, with one blob in it."""

    def __init__(self, codec: ValueCodec) -> None:
        self.codec = codec

    def value(self, name: str, what: str) -> Content:
        return self.codec.open(blob(self.codec, LARGE, ANOTHER), what=what, name=name)


def store_of(codec: ValueCodec) -> ValueStore:
    return ValueStore(codec, Blobs(codec), 1024)  # type: ignore[arg-type]


def test_fields() -> None:
    """References, and lists of values: those of a signed store; in a plain one, what is no reference at all."""
    store = store_of(SIGNED)
    reference = REFERENCE + SIGNED.refer(ANOTHER)
    for number, changed in enumerate(changes(reference, 1000, seed=3)):
        if changed[:1] in (REFERENCE, b""):
            refused(f"reference damaged {number}", partial(store.unpack, changed, "key 'k'"), "key 'k'")
    plain = store_of(PLAIN)
    for number, changed in enumerate(changes(REFERENCE + PLAIN.refer(ANOTHER), 500, seed=4)):
        if changed[:33] == REFERENCE + ANOTHER.encode():
            continue  # with 16 bytes behind it, a signature that nobody here can check
        refused(f"plain field damaged {number}", partial(plain.unpack, changed, "key 'k'"), "key 'k'")
    element = INLINE + SIGNED.seal(MARKED, "pickle")
    one = LIST + struct.pack(">II", 1, len(element)) + element
    for number, changed in enumerate(changes(one, 1000, seed=5)):
        if changed[:1] == LIST and changed[1:5] != bytes(4):
            refused(f"list damaged {number}", partial(store.unpack, changed, "key 'k'"), "key 'k'")
    nested = one
    for _ in range(3000):
        nested = LIST + struct.pack(">II", 1, len(nested)) + nested
    refused("lists in lists", lambda: store.unpack(nested, "key 'k'"), "key 'k'")


@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
def test_short_values_without_a_secret_give_a_value_or_a_clear_error(serializer: str) -> None:
    codec = ValueCodec((serializer,))
    data = codec.encode({"a": [1, "x", None, 2.5], "b": "y" * 20}, what="v")
    for number, changed in enumerate(changes(data, 400, seed=6)):
        CASES[f"plain {serializer} damaged {number}"] += 1
        try:
            codec.decode(changed, what="channel key 'k'")
        except (BlobRejectedError, SerializationError) as error:
            assert str(error).startswith("Channel key 'k': "), error  # noqa: PT017


# --- attacks --------------------------------------------------------------------------------------------------


def test_unsigned_and_wrongly_signed() -> None:
    for choice in range(150):
        payload = pickle.dumps([Marker(), choice, "x" * (choice * 40)])
        name = digest(payload)
        for codec, said in ((PLAIN, "is not signed"), (OTHER, "signature of it is wrong")):
            assert said in refused_blob(f"blob {said} {choice}", SIGNED, blob(codec, payload, name), name)
            assert said in refused_value(f"value {said} {choice}", SIGNED, codec.seal(payload, "pickle"))
            reference = REFERENCE + codec.refer(name)
            text = refused(f"ref {said} {choice}", partial(store_of(SIGNED).unpack, reference, "key 'k'"), "key 'k'")
            assert said.replace(" it ", " this reference ") in text if codec is OTHER else said in text


def test_one_in_anothers_place() -> None:
    """Blobs that are signed and whole, under another name; a value where a blob is asked for, and the reverse."""
    sealed = {}
    for number in range(25):
        payload = pickle.dumps([Marker(), number])
        sealed[digest(payload)] = blob(SIGNED, payload, digest(payload))
    for (name, _), (other, data) in itertools.permutations(sealed.items(), 2):
        assert f"it is the blob {other}" in refused_blob("swapped", SIGNED, data, name).lower()
    for data in sealed.values():
        refused_value("a blob as a value", SIGNED, data)
        refused_blob("a value as a blob", SIGNED, SIGNED.seal(MARKED, "pickle"))
    references = [SIGNED.refer(name) for name in sealed]
    for name_of, tag_of in itertools.permutations(references, 2):
        crossed = REFERENCE + name_of[:32] + tag_of[32:]
        refused("crossed", partial(store_of(SIGNED).unpack, crossed, "key 'k'"), "key 'k'")


def test_fields_of_two_heads_crossed() -> None:
    one, other = blob(SIGNED), blob(SIGNED, LARGE, ANOTHER)
    edges = (0, 1, 2, 3, 4, 8, 16, 32, 64, 96)
    fields = list(itertools.pairwise(edges))
    for chosen in range(1, 1 << len(fields)):
        made = bytearray(one)
        for number, (start, end) in enumerate(fields):
            if chosen >> number & 1:
                made[start:end] = other[start:end]
        if bytes(made) == one:
            continue
        refused("fields crossed", partial(read_blob, SIGNED, bytes(made)), "blob")


def forged(first: bytes, length: int, body: bytes) -> bytes:
    """A blob with any head, and the digest that fits it."""
    begin = struct.pack(">4s4xQ16s", first, length, bytes.fromhex(NAME))
    return begin + hashlib.blake2b(begin + body, digest_size=32).digest() + bytes(SIGNATURE) + body


def test_other_forms() -> None:
    """Every version, serializer and set of flags that we don't write, also where no secret is set."""
    for version in range(256):
        if version != 2:
            text = refused_blob("version", PLAIN, forged(bytes((0xB7, version, 3, 1)), len(MARKED), MARKED))
            assert f"format {version} and this process reads 2" in text
            refused_value("version of a value", PLAIN, bytes((0xB7, version, 3, 0)) + MARKED)
    for serializer in {*range(256)} - {1, 2, 3, 4}:
        refused_blob("serializer", PLAIN, forged(bytes((0xB7, 2, serializer, 1)), len(MARKED), MARKED))
        refused_value("serializer of a value", PLAIN, bytes((0xB7, 2, serializer, 0)) + MARKED)
    for flags in range(256):
        if flags not in (1, 5):  # 5: signed; no secret is set here to look at it with
            refused_blob("flags", PLAIN, forged(bytes((0xB7, 2, 3, flags)), len(MARKED), MARKED))
        if flags not in (0, 4):
            refused_value("flags of a value", PLAIN, bytes((0xB7, 2, 3, flags)) + MARKED)


def test_the_first_format() -> None:
    for flags in range(4):
        for code in range(1, 5):
            old = bytes((0xB7, 1, code, flags)) + bytes(32) + MARKED
            for codec in (SIGNED, PLAIN):
                assert "format 1" in refused_blob("v1", codec, old)
                assert "format 1" in refused_value("v1 value", codec, old)


def test_serializers_that_are_not_allowed() -> None:
    for allowed in (("json",), ("msgpack",), ("json", "msgpack")):
        codec = ValueCodec(allowed, (b"new",))
        for data in (SIGNED.seal(MARKED, "pickle", NAME), SIGNED.seal(LARGE, "pickle", NAME)):
            assert "does not allow pickle. It was not decoded" in refused_blob("not allowed", codec, data)
        assert "does not allow pickle" in refused_value("not allowed", codec, SIGNED.seal(MARKED, "pickle"))


# --- too large ------------------------------------------------------------------------------------------------


def test_too_large() -> None:
    """Signed by one who may, with a greater limit; or declared so. Nothing of that size is made."""
    generous = ValueCodec(ALL, (b"new", b"old"))
    for size in (LIMIT + 1, 2 * LIMIT, 20_000_000):
        for payload in (bytes(size), random.Random(size).randbytes(size)):
            name = content_name(Content("raw", payload))
            text = refused_blob("large", SIGNED, generous.seal(payload, "raw", name), name)
            assert f"It has {size:,} bytes, and setting value_limit allows {LIMIT:,}" in text
            refused_value("large value", SIGNED, generous.seal(payload, "raw"))
    for length in (LIMIT + 1, 1 << 40, (1 << 64) - 1):
        refused_blob("declared", PLAIN, forged(bytes((0xB7, 2, 3, 3)), length, zstd.compress(MARKED)))
    for length in [*range(0, 300, 7), LIMIT]:
        if length != len(MARKED):
            refused_blob("declared", PLAIN, forged(bytes((0xB7, 2, 3, 3)), length, zstd.compress(MARKED)))
            refused_blob("declared, plain", PLAIN, forged(bytes((0xB7, 2, 3, 1)), length, MARKED))


def test_bombs_and_odd_frames() -> None:
    bomb = zstd.compress(bytes(300_000_000), 1)
    assert len(bomb) < 50_000
    frames = {
        "bomb": bomb,
        "two frames": zstd.compress(MARKED) * 2,
        "a tail": zstd.compress(MARKED) + b"tail",
        "a skippable frame": struct.pack("<II", 0x184D2A50, 4) + b"skip" + zstd.compress(MARKED),
        "nothing": b"",
        "no frame": MARKED,
        "a huge window": _with_window(27),
    }
    for kind, frame in frames.items():
        text = refused_blob(kind, PLAIN, forged(bytes((0xB7, 2, 3, 3)), len(MARKED), frame))
        assert "compressed bytes are damaged" in text, kind
    for number, frame in enumerate(changes(zstd.compress(LARGE), 600, seed=7)):
        # With a digest that fits, as only who wants to may make it: still nothing but bytes come of it.
        CASES[f"frame {number}"] += 1
        with contextlib.suppress(BlobRejectedError):
            opened = PLAIN.open(forged(bytes((0xB7, 2, 4, 3)), len(LARGE), frame), name=NAME)
            assert len(opened.payload) == len(LARGE)


def _with_window(log: int) -> bytes:
    """A frame that asks for a window of 2^log bytes, and does not say how long its content is."""
    parameter = zstd.CompressionParameter
    maker = zstd.ZstdCompressor(options={parameter.window_log: log, parameter.content_size_flag: 0})
    return bytes(maker.compress(MARKED) + maker.flush())


def test_that_there_were_ten_thousand() -> None:
    """Runs last, as it stands last; counts nothing where single tests were chosen."""
    if "flags" in CASES and "bomb" in CASES:
        assert CASES.total() >= 10_000, CASES.total()
