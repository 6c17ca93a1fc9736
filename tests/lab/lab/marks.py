"""Volumes that can be told apart by what they hold."""

from __future__ import annotations

from pathlib import Path

from lab.blockdev import pattern, read_direct
from lab.target import Volume

MIB = 1 << 20
BLOCK = 4096


def places(size: int) -> tuple[int, ...]:
    """Where a volume of that size bears its mark: at both ends and between."""
    return (0, MIB, size // 2, size - BLOCK)


def mark(volume: Volume) -> Volume:
    """Write the volume's name all over it and wipe the rest, at the storage."""
    with volume.file.open("r+b") as file:
        file.truncate(0)
        file.truncate(volume.size)
        for place in places(volume.size):
            file.seek(place)
            file.write(pattern(f"{volume.name} at {place}", BLOCK))
    return volume


def shown_by(device: str | Path, volumes: list[Volume], size: int) -> str:
    """Name of the volume that a device of that size shows: of one of these, or what is wrong."""
    shown = {
        place: next((v.name for v in volumes if _at(v, place) == data), "none of them")
        for place in places(size)
        for data in [read_direct(device, place, BLOCK)]
    }
    names = set(shown.values())
    return names.pop() if len(names) == 1 else f"mixed: {shown}"


def is_untouched(volume: Volume) -> bool:
    """The storage holds the marks and nothing else: nobody wrote to the volume."""
    expected = bytearray(volume.size)
    for place in places(volume.size):
        expected[place : place + BLOCK] = pattern(f"{volume.name} at {place}", BLOCK)
    return volume.file.read_bytes() == expected


def _at(volume: Volume, place: int) -> bytes:
    with volume.file.open("rb") as file:
        file.seek(place)
        return file.read(BLOCK)
