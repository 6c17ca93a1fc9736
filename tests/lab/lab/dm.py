"""Multipath maps as the kernel has them, by dmsetup."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.state import snapshot
from lab.tools import run


@dataclass(frozen=True)
class Group:
    """A path group: the kernel's letter (A in use, E enabled, D disabled), and for each disk A or F
    (failed).
    """

    letter: str
    paths: dict[str, str]

    @property
    def disks(self) -> frozenset[str]:
        return frozenset(self.paths)


@dataclass(frozen=True)
class Table:
    """What was loaded: the words of the features, the handler, and the disks of each group."""

    features: tuple[str, ...]
    handler: tuple[str, ...]
    groups: tuple[frozenset[str], ...]

    @property
    def queues(self) -> bool:
        return "queue_if_no_path" in self.features


def _counted(words: Iterator[str]) -> tuple[str, ...]:
    """A number, and as many words."""
    return tuple(next(words) for _ in range(int(next(words))))


def _disk(number: str) -> str:
    return Path(f"/sys/dev/block/{number}").resolve().name


def _words(command: str, wwid: str) -> Iterator[str]:
    line = run("dmsetup", command, "--uuid", f"mpath-{wwid}").split()
    assert line[2] == "multipath", f"{command}: {' '.join(line)}"
    return iter(line[3:])


def table(wwid: str) -> Table:
    """The map's live table."""
    words = _words("table", wwid)
    features, handler = _counted(words), _counted(words)
    count = int(next(words))
    next(words)  # the group to begin with
    groups = []
    for _ in range(count):
        next(words)  # selector
        _counted(words)
        paths, arguments = int(next(words)), int(next(words))
        disks = []
        for _ in range(paths):
            disks.append(_disk(next(words)))
            for _ in range(arguments):
                next(words)
        groups.append(frozenset(disks))
    return Table(features, handler, tuple(groups))


def status(wwid: str) -> tuple[Group, ...]:
    """The map's groups as they stand, in the order of the table."""
    words = _words("status", wwid)
    _counted(words)
    _counted(words)
    count = int(next(words))
    next(words)  # the group that is next, or in use
    groups = []
    for _ in range(count):
        letter = next(words)
        _counted(words)
        paths, arguments = int(next(words)), int(next(words))
        states = {}
        for _ in range(paths):
            disk = _disk(next(words))
            states[disk] = next(words)
            for _ in range(1 + arguments):  # how often it failed, and the selector's
                next(words)
        groups.append(Group(letter, states))
    return tuple(groups)


def failed(wwid: str) -> set[str]:
    """The disks that the map does not use because an I/O through them failed."""
    return {disk for group in status(wwid) for disk, letter in group.paths.items() if letter == "F"}


def message(wwid: str, text: str) -> None:
    """Tell the map something, ``fail_path 8:16`` for example."""
    (name,) = (dm.name for dm in snapshot().maps if dm.uuid == f"mpath-{wwid}")
    run("dmsetup", "message", name, "0", text)


def number_of(disk: str) -> str:
    """``major:minor``."""
    return Path(f"/sys/block/{disk}/dev").read_text().strip()
