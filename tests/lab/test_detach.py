"""Detach on the real stack: in use, dead paths, force, partition maps, multipathd's list."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import manypath
from lab import Caller, DmMap, Iscsid, Lab, Multipathd, Portal, wait_until
from lab.blockdev import pattern, write_direct
from lab.tools import run
from manypath import Attachment, Flush
from manypath.errors import FlushError, InUseError, ManypathError

TIMEOUT = 60.0
LIMIT = 30.0  # of a detach that is to give up
MIB = 1 << 20


def attach(lab: Lab, portals: list[Portal]) -> tuple[dict[str, Any], Attachment]:
    properties = lab.export(lab.volume(64), portals).properties
    return properties, manypath.connect(properties, timeout=TIMEOUT)


def assert_gone(lab: Lab) -> None:
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


@contextmanager
def mounted(device: str, point: Path) -> Iterator[None]:
    run("mkfs.ext4", "-q", "-F", device)
    point.mkdir()
    run("mount", device, str(point))
    try:
        yield
    finally:
        run("umount", str(point))


def in_d_state() -> list[str]:
    """Processes that wait uninterruptibly, and for what; kernel threads rest like that too."""
    found = []
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            if state == "D" and (task / "exe").exists():
                found.append(
                    f"{(task / 'comm').read_text().strip()}: {(task / 'wchan').read_text()}"
                )
        except OSError:
            continue
    return found


def assert_nobody_hangs() -> None:
    wait_until(lambda: not in_d_state(), f"nobody in D state: {in_d_state()}", timeout=10)


def fail_paths(item: DmMap) -> None:
    """As the kernel does when a session is lost for good; nobody takes them back."""
    for name in item.members:
        disk = Path("/sys/block") / name
        (disk / "device/state").write_text("offline\n")
        number = (disk / "dev").read_text().strip()
        run("dmsetup", "message", item.name, "0", "fail_path", number)


def queueing(item: DmMap) -> bool:
    return "queue_if_no_path" in run("dmsetup", "table", item.name)


def test_mounted(lab: Lab, iscsid: Iscsid, multipathd: Multipathd, tmp_path: Path) -> None:
    """Refused with the place named, forced or not, and nothing changes."""
    properties, attachment = attach(lab, lab.portals(2))
    before = lab.snapshot()
    point = tmp_path / "a b"
    with mounted(attachment.path, point):
        for force in (False, True):
            with pytest.raises(InUseError, match="nothing was removed") as caught:
                manypath.disconnect(properties, timeout=LIMIT, force=force)
            assert f"{attachment.device} is in use: mounted on {point}" in str(caught.value)
        (point / "file").write_bytes(pattern("mounted", MIB))
    assert len(lab.snapshot().devices) == len(before.devices)
    detachment = manypath.disconnect(properties, timeout=TIMEOUT)
    assert detachment.flush is Flush.DONE
    assert_gone(lab)


def test_swap(lab: Lab, iscsid: Iscsid) -> None:
    properties, attachment = attach(lab, lab.portals(2))
    run("mkswap", attachment.path)
    run("swapon", attachment.path)
    try:
        with pytest.raises(InUseError, match="used as swap"):
            manypath.disconnect(properties, timeout=LIMIT)
    finally:
        run("swapoff", attachment.path)
    manypath.disconnect(properties, timeout=TIMEOUT)
    assert_gone(lab)


def test_a_program_has_a_single_path_open(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Without claiming it, which only its descriptor tells; it goes on with the disk."""
    properties = lab.export(lab.volume(64), lab.portals(1)).properties
    device = manypath.connect(properties, multipath=False, timeout=TIMEOUT).path
    data = pattern("open", MIB)
    with open(device, "r+b", buffering=0) as file:
        for force in (False, True):
            with pytest.raises(InUseError, match="nothing was removed") as caught:
                manypath.disconnect(properties, timeout=LIMIT, force=force)
            assert f"(pid {os.getpid()})" in str(caught.value)
        file.write(data)
        os.fsync(file.fileno())
        file.seek(0)
        assert file.read(MIB) == data
    assert manypath.disconnect(properties, timeout=TIMEOUT).flush is Flush.DONE
    assert_gone(lab)


def make_partition(attachment: Attachment) -> str:
    """A partition map as kpartx makes it; without kpartx, which the guest need not have."""
    number = Path(f"/sys/block/{attachment.device}/dev").read_text().strip()
    name = f"{attachment.name}-part1"
    uuid = f"part1-mpath-{attachment.wwid}"
    run("dmsetup", "create", name, "--uuid", uuid, "--table", f"0 2048 linear {number} 2048")
    return f"/dev/mapper/{name}"


def test_partition_maps(lab: Lab, iscsid: Iscsid, multipathd: Multipathd, tmp_path: Path) -> None:
    """One that is mounted refuses the detach; one that nobody uses goes, its data written."""
    properties, attachment = attach(lab, lab.portals(2))
    part = make_partition(attachment)
    with mounted(part, tmp_path / "mnt"), pytest.raises(InUseError) as caught:
        manypath.disconnect(properties, timeout=LIMIT)
    assert "partition map p1" in str(caught.value)
    assert f"mounted on {tmp_path / 'mnt'}" in str(caught.value)
    manypath.disconnect(properties, timeout=TIMEOUT)
    assert_gone(lab)


def test_dead_paths_and_queueing(lab: Lab, iscsid: Iscsid) -> None:
    """Without force: an error at once, and everything as it was. The process that attached, which
    would have stopped the queueing, is gone.
    """
    properties = lab.export(lab.volume(64), lab.portals(2)).properties
    with Caller() as other:
        assert other.call("connect", properties).error is None
    (item,) = lab.snapshot().maps
    run("dmsetup", "message", item.name, "0", "queue_if_no_path")
    fail_paths(item)
    begin = time.monotonic()
    with pytest.raises(FlushError, match="is usable and it queues I/O"):
        manypath.disconnect(properties, timeout=TIMEOUT)
    assert time.monotonic() - begin < 10
    assert queueing(item)
    assert len(lab.snapshot().devices) == 2
    with pytest.raises(FlushError) as caught:
        manypath.disconnect(properties, timeout=TIMEOUT, force=True)
    assert caught.value.detachment is not None
    assert caught.value.detachment.flush is Flush.FAILED
    assert_gone(lab)
    assert_nobody_hangs()


@pytest.mark.parametrize("how", ["reject", "drop"])
def test_dead_paths_and_dirty_data(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, how: Any
) -> None:
    """A writer is stuck on a queueing map whose portals are gone; force ends in bounded time."""
    portals = lab.portals(2)
    properties, attachment = attach(lab, portals)
    run("dmsetup", "message", attachment.name, "0", "queue_if_no_path")
    writer = subprocess.Popen(
        ["dd", "if=/dev/zero", f"of={attachment.path}", "bs=1M", "count=16", "conv=fsync"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for portal in portals:
        lab.cut(portal, how)
    begin = time.monotonic()
    try:
        detachment = manypath.disconnect(properties, timeout=LIMIT, force=True, ignore_errors=True)
    finally:
        took = time.monotonic() - begin
        for portal in portals:
            lab.heal(portal)
    assert took < LIMIT + 1
    if detachment.errors:
        assert detachment.flush in (Flush.FAILED, Flush.UNKNOWN)
    else:  # the writer was quicker than the cut
        assert detachment.flush is Flush.DONE
    writer.wait(timeout=60)
    assert_nobody_hangs()
    manypath.disconnect(properties, timeout=TIMEOUT, force=True, ignore_errors=True)
    assert_gone(lab)


def test_open_without_a_path(lab: Lab, iscsid: Iscsid) -> None:
    """Its disks go, with force; the map when it is closed."""
    properties, attachment = attach(lab, lab.portals(2))
    user = os.open(attachment.path, os.O_RDONLY)
    try:
        fail_paths(lab.snapshot().maps[0])
        with pytest.raises(ManypathError) as caught:
            manypath.disconnect(properties, timeout=12.0, force=True)
        detachment = caught.value.detachment
        assert detachment is not None
        assert [type(error) for error in detachment.errors] == [FlushError, InUseError]
        assert (detachment.devices_removed, detachment.sessions_removed) == (2, 2)
        state = lab.snapshot()
        assert (state.sessions, state.devices) == ((), ())
        assert len(state.maps) == 1
    finally:
        os.close(user)
    wait_until(lambda: not lab.snapshot().maps, "the map is gone")


def test_multipathd_has_let_go(lab: Lab, iscsid: Iscsid) -> None:
    """When a detach is over, so that the next attach finds no trace of the paths."""
    lab.multipathd.start()
    properties = lab.export(lab.volume(64), lab.portals(4)).properties
    for _ in range(5):
        attachment = manypath.connect(properties, timeout=TIMEOUT)
        write_direct(attachment.path, pattern("round", MIB))
        detachment = manypath.disconnect(properties, timeout=TIMEOUT)
        assert detachment.warnings == ()
        assert (detachment.devices_removed, detachment.sessions_removed) == (4, 4)
        listed = lab.multipathd.command("show", "paths", "raw", "format", "%d")
        for path in attachment.paths:
            assert path.device not in listed.split()
    assert_gone(lab)
