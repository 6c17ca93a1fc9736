"""Attach and detach over and over: nothing adds up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import manypath
from lab import Iscsid, Lab, Multipathd

CYCLES = int(os.environ.get("LAB_CYCLES", "16"))  # `make soak` sets 100
WARM_UP = 10
GROWTH_KIB = 256


def anonymous_kib() -> int:
    """The process's own memory, counted page by page: VmRSS lags behind by up to 64 pages for each
    thread (proc(5)), and grows with each page of a library that is used for the first time.
    """
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1])
    raise AssertionError("no Anonymous in /proc/self/smaps_rollup")


def open_files() -> list[str]:
    """What each descriptor is open on; the inodes of sockets and the like left out."""
    names = []
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # that of iterdir() itself
            names.append(str(link.readlink()).partition(":[")[0])
    return sorted(names)


def test_cycles_leak_nothing(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, record_property: Callable[[str, object], None]
) -> None:
    """Sessions, disks, maps and semaphores are compared by the fixture after the test."""
    properties = lab.export(lab.volume(), lab.portals(4)).properties
    warm: tuple[list[str], int] | None = None
    for cycle in range(CYCLES):
        attachment = manypath.connect(properties, timeout=60)
        unusable = [str(path.error) for path in attachment.paths if path.state != "active"]
        assert unusable == [], f"cycle {cycle}"
        manypath.disconnect(properties, timeout=60)
        state = lab.snapshot()
        assert (state.sessions, state.devices, state.maps) == ((), (), ()), f"cycle {cycle}"
        files, memory = open_files(), anonymous_kib()
        if cycle + 1 == WARM_UP:
            warm = (files, memory)
        if warm is not None:
            assert files == warm[0], f"cycle {cycle}"
            assert memory - warm[1] < GROWTH_KIB, f"cycle {cycle}"
    assert warm is not None, f"{CYCLES} cycles are fewer than the warm-up of {WARM_UP}"
    record_property("cycles", CYCLES)
    record_property("descriptors", f"{len(warm[0])} -> {len(files)}")
    record_property("KiB of its own", f"{warm[1]} -> {memory}")
