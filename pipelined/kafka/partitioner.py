"""To which partition a key goes: what librdkafka's ``murmur2_random`` and the Java client do."""

from __future__ import annotations

import struct

__all__ = ["partition_of"]

_M = 0x5BD1E995
_ALL = 0xFFFFFFFF
_SEED = 0x9747B28C


def partition_of(key: bytes, partitions: int) -> int:
    """The number of the partition, of so many, for a key."""
    size = len(key)
    mixed = _SEED ^ size
    words = size & ~3
    for (four,) in struct.iter_unpack("<I", key[:words]):
        word = four * _M & _ALL
        mixed = (mixed * _M & _ALL) ^ ((word ^ (word >> 24)) * _M & _ALL)
    if words < size:
        mixed = (mixed ^ int.from_bytes(key[words:], "little")) * _M & _ALL
    mixed = (mixed ^ (mixed >> 13)) * _M & _ALL
    return ((mixed ^ (mixed >> 15)) & 0x7FFFFFFF) % partitions
