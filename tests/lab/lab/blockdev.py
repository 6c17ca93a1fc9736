"""Raw bytes of a block device, past the page cache."""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from pathlib import Path


def device_path(name: str) -> Path:
    """/dev node of a kernel name such as ``sda`` or ``dm-0``."""
    return Path("/dev") / name


def read_direct(device: str | Path, offset: int = 0, length: int = 4096) -> bytes:
    """Read with O_DIRECT; offset and length are multiples of the block size."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, length) as buffer:  # page-aligned, as O_DIRECT wants it
            got = os.preadv(fd, [buffer], offset)
            return buffer[:got]
    finally:
        os.close(fd)


def write_direct(device: str | Path, data: bytes, offset: int = 0) -> None:
    """Write with O_DIRECT and flush the device's cache; sizes as for ``read_direct``."""
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            written = os.pwritev(fd, [buffer], offset)
            if written != len(data):
                raise OSError(f"short write to {device}: {written} of {len(data)}")
        os.fsync(fd)
    finally:
        os.close(fd)


def pattern(seed: str, length: int = 4096) -> bytes:
    """Bytes that differ for every seed and every block."""
    blocks = (hashlib.sha256(f"{seed}:{i}".encode()).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def partition_table(first: int, sectors: int, count: int) -> bytes:
    """A master boot record with ``count`` (up to four) partitions of Linux, one after the other."""
    entries = b"".join(
        struct.pack("<B3xB3xII", 0, 0x83, first + index * sectors, sectors)
        for index in range(count)
    )
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"
