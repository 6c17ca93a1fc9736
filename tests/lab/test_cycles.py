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
RSS_GROWTH_KIB = 256


def rss_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS in /proc/self/status")


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
        files, rss = open_files(), rss_kib()
        if cycle + 1 == WARM_UP:
            warm = (files, rss)
        if warm is not None:
            assert files == warm[0], f"cycle {cycle}"
            assert rss - warm[1] < RSS_GROWTH_KIB, f"cycle {cycle}"
    assert warm is not None, f"{CYCLES} cycles are fewer than the warm-up of {WARM_UP}"
    record_property("cycles", CYCLES)
    record_property("descriptors", f"{len(warm[0])} -> {len(files)}")
    record_property("KiB resident", f"{warm[1]} -> {rss}")
