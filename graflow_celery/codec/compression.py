"""zstd, where it pays: a sample says so before the whole is compressed."""

from __future__ import annotations

import sys

from graflow_celery.errors import BlobRejectedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Bytes below which nothing is tried.
LEAST = 256
#: What is kept of the size at most, or it is left alone.
WORTH = 0.9
_LEVEL = 3
#: A frame may ask for 8 MiB of memory beside what it makes; level 3 asks for 2.
_BOUND: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_SAMPLE_LEVEL = 1
_SAMPLED_FROM = 1 << 18
_SLICES = 4
_SLICE = 1 << 14


def compressed(data: bytes) -> bytes | None:
    """``data`` as a zstd frame (RFC 8878), or None if that would save less than a tenth.

    Of more than 256 KiB four slices of 16 KiB are tried first, so that what is compressed already (images, Parquet) or
    random costs next to nothing.
    """
    if len(data) < LEAST or (len(data) > _SAMPLED_FROM and not _promises(data)):
        return None
    made = zstd.compress(data, _LEVEL)
    return made if len(made) <= WORTH * len(data) else None


def _promises(data: bytes) -> bool:
    view = memoryview(data)
    step = (len(data) - _SLICE) // (_SLICES - 1)
    slices = [view[start : start + _SLICE] for start in range(0, step * (_SLICES - 1) + 1, step)]
    made = sum(len(zstd.compress(part, _SAMPLE_LEVEL)) for part in slices)
    return made <= WORTH * _SLICES * _SLICE


def decompressed(frame: bytes | memoryview, length: int) -> bytes:
    """The ``length`` bytes that a frame was made of. Never more than these are made, whatever the frame holds.

    Raises:
        BlobRejectedError: it is no frame, or one of another length.
    """
    reader = zstd.ZstdDecompressor(options=_BOUND)
    try:
        data = reader.decompress(frame, max_length=length) if length else b""
        # A frame that ends right there says so only when it is asked for more.
        rest = b"" if reader.eof else reader.decompress(b"", max_length=1)
    except zstd.ZstdError as error:
        raise BlobRejectedError(f"its compressed bytes are damaged ({error})") from None
    if len(data) != length or rest or not reader.eof or reader.unused_data:
        raise BlobRejectedError(f"its compressed bytes are damaged: they do not make {length:,} bytes")
    return data
