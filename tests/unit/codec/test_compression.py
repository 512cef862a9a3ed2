"""zstd where it pays, nothing where it does not: a sample of large content decides."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graflow_celery.codec.compression import LEAST, compressed, decompressed
from graflow_celery.errors import BlobRejectedError

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog,", "and", "nobody", "knows", "why.", "17"]
TEXT = " ".join(random.Random(6).choices(WORDS, k=500_000)).encode()
NOISE = random.Random(5).randbytes(2_000_000)


CASES: dict[str, tuple[bytes, bool]] = {
    "nothing": (b"", False),
    "too short": (b"a" * (LEAST - 1), False),
    "just long enough": (b"a" * LEAST, True),
    "short noise": (NOISE[:LEAST], False),
    "short text": (TEXT[:5000], True),
    "text": (TEXT, True),
    "zeros": (bytes(10_000_000), True),
    "noise": (NOISE, False),
    "compressed text": (zlib.compress(TEXT), False),
    "compressed noise": (zlib.compress(NOISE), False),
    "half text, half noise": (TEXT[:1_000_000] + NOISE[:1_000_000], True),
    "half noise, half text": (NOISE[:1_000_000] + TEXT[:1_000_000], True),
    "a head of text": (TEXT[:100_000] + NOISE, False),
    "a tail of text": (NOISE + TEXT[:100_000], False),
    "a head of noise": (NOISE[:100_000] + TEXT, True),
}


@pytest.mark.parametrize(("data", "pays"), CASES.values(), ids=list(CASES))
def test_it_is_used_where_it_saves_a_tenth(data: bytes, pays: bool) -> None:
    frame = compressed(data)
    assert (frame is not None) == pays
    if frame is not None:
        assert len(frame) <= 0.9 * len(data)
        assert decompressed(frame, len(data)) == data


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200_000)), max_size=5))
def test_whatever_is_compressed_comes_back(parts: list[tuple[bool, int]]) -> None:
    data = b"".join((TEXT if is_text else NOISE)[:size] for is_text, size in parts)
    frame = compressed(data)
    if frame is not None:
        assert decompressed(frame, len(data)) == data
        for wrong in (len(data) - 1, len(data) + 1, 0):
            with pytest.raises(BlobRejectedError, match="compressed bytes are damaged"):
                decompressed(frame, wrong)
