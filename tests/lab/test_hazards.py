"""Hazards of docs/hazards.md that no other test has for its subject."""

from __future__ import annotations

import time

import pytest

import manypath
from lab import Iscsid, Lab, Multipathd, run
from lab.blockdev import pattern, read_direct
from lab.iscsiadm import iscsiadm, login

TIMEOUT = 60.0
MIB = 1 << 20


def assert_nothing_left(lab: Lab) -> None:
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def test_two_sessions_to_one_node(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Hazard 7: made by an operator with nr_sessions, or by a race of two logins. Both are the
    volume's; a detach that knows one leaves the other's disk.
    """
    volume = lab.volume()
    export = lab.export(volume, lab.portals(1))
    done = login(export.portals[0], export.iqns[0], node__session__nr_sessions="2")
    assert done.returncode == 0, done.stdout
    assert len(lab.snapshot().sessions) == 2
    lab.settle()
    attachment = manypath.connect(export.properties, timeout=TIMEOUT)
    assert attachment.wwid == volume.wwid
    manypath.disconnect(export.properties, timeout=TIMEOUT)
    assert_nothing_left(lab)


@pytest.mark.parametrize("attached_as_map", [True, False], ids=["map", "disk"])
def test_the_multipath_flag_is_flipped(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, attached_as_map: bool
) -> None:
    """Hazard 8: detached with another setting of use_multipath than attached, cached data are lost
    with whatever was not flushed.
    """
    volume = lab.volume()
    properties = lab.export(volume, lab.portals(2)).properties
    attachment = manypath.connect(properties, multipath=attached_as_map, timeout=TIMEOUT)
    data = pattern("not flushed by the writer", MIB)
    with open(attachment.path, "r+b", buffering=0) as device:
        device.write(data)
    manypath.disconnect(properties, multipath=not attached_as_map, timeout=TIMEOUT)
    assert_nothing_left(lab)
    assert volume.file.read_bytes()[:MIB] == data


def test_udev_is_late(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Hazards 18 and 19: on a loaded host udev is seconds behind. The device that an attach returns
    is the kernel's, and no link is waited for or read.
    """
    volume = lab.volume()
    properties = lab.export(volume, lab.portals(2)).properties
    lab.settle()
    run("udevadm", "control", "--stop-exec-queue")
    try:
        begun = time.monotonic()
        attachment = manypath.connect(properties, timeout=TIMEOUT)
        took = time.monotonic() - begun
        assert read_direct(attachment.path) == bytes(4096)
        assert len(attachment.paths) == 2
        manypath.disconnect(properties, timeout=TIMEOUT)
    finally:
        run("udevadm", "control", "--start-exec-queue")
    print(f"attached after {took:.2f} s")
    assert took < 10
    lab.settle()
    assert_nothing_left(lab)


def test_a_session_that_scans_by_itself(lab: Lab, iscsid: Iscsid) -> None:
    """Hazard 1: a session of somebody else's brings all LUNs of its target in, and again whenever
    the target tells of a new one. Only the LUN asked for is used, and the others stay as they are.
    """
    volumes = [lab.volume(), lab.volume()]
    export = lab.export(volumes, lab.portals(1), shape="shared")
    done = login(export.portals[0], export.iqns[0])
    assert done.returncode == 0, done.stdout
    lab.settle()
    before = lab.snapshot()
    assert len(before.devices) == 2
    attachment = manypath.connect(export.properties, timeout=TIMEOUT)
    assert attachment.wwid == volumes[0].wwid
    detachment = manypath.disconnect(export.properties, timeout=TIMEOUT)
    assert (detachment.devices_removed, detachment.sessions_kept) == (1, 1)
    (left,) = lab.snapshot().devices
    assert left in before.devices
    assert iscsiadm("-m", "node", "-u").returncode == 0
