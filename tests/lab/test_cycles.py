"""Attach and detach over and over: nothing adds up."""

from __future__ import annotations

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


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_cycles_leak_nothing(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, record_property: Callable[[str, object], None]
) -> None:
    """Sessions, disks, maps and semaphores are compared by the fixture after the test."""
    properties = lab.export(lab.volume(), lab.portals(4)).properties
    warm: tuple[int, int] | None = None
    for cycle in range(CYCLES):
        attachment = manypath.connect(properties, timeout=60)
        unusable = [str(path.error) for path in attachment.paths if path.state != "active"]
        assert unusable == [], f"cycle {cycle}"
        manypath.disconnect(properties, timeout=60)
        state = lab.snapshot()
        assert (state.sessions, state.devices, state.maps) == ((), (), ()), f"cycle {cycle}"
        if cycle + 1 == WARM_UP:
            warm = (open_files(), rss_kib())
    assert warm is not None, f"{CYCLES} cycles are fewer than the warm-up of {WARM_UP}"
    files, rss = open_files(), rss_kib()
    record_property("cycles", CYCLES)
    record_property("descriptors", f"{warm[0]} -> {files}")
    record_property("KiB resident", f"{warm[1]} -> {rss}")
    assert files == warm[0]
    assert rss - warm[1] < RSS_GROWTH_KIB
