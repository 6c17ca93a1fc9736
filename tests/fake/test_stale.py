# SPDX-License-Identifier: Apache-2.0
"""Disks and maps that were left when their LUN was given to another volume (CVE-2023-2088)."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from fake.host import IQN, Disk, FakeHost, Volume, at_most, new_volume, until
from fake.library import Target
from fake.multipathd import FakeMultipathd


def leave(host: FakeHost, count: int = 2, *, with_map: bool = False) -> tuple[Volume, list[Target]]:
    """Disks of a volume that is not at the LUN any more. Return it, and where it was."""
    old = host.export()
    targets = host.targets(count)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    if with_map:
        host.handle.attach(targets).finish()
    return old, targets


def disks(host: FakeHost) -> list[Disk]:
    return [session.disks[1] for session in host.sessions.values()]


def assert_fresh(host: FakeHost, made: Any, volume: Volume) -> None:
    assert made.wwid == volume.wwid
    assert list(host.dm.maps) == [volume.uuid]
    assert all(disk.volume is volume for disk in disks(host))
    for disk in disks(host):
        assert (disk.folder / "vpd_pg83").read_bytes() == volume.page_83()
        assert (disk.folder / "state").read_text() == "running\n"


def test_disks(host: FakeHost) -> None:
    old, targets = leave(host)
    host.swap(new := new_volume())
    made = host.handle.attach(targets).finish()
    assert_fresh(host, made, new)
    assert sorted(host.passed("delete")) == ["sda", "sdb"]
    assert {path.state for path in made.paths} == {"ACTIVE"}
    left_over = [text for text in made.warnings if "was left over" in text]
    assert len(left_over) == 2
    for warning in left_over:
        assert old.wwid in warning
        assert new.wwid in warning
    assert set(host.passed("fsync")) == {"wwids"}


def test_one_of_two_disks(host: FakeHost) -> None:
    """The other path was scanned after the swap."""
    leave(host, 1)
    host.swap(new := new_volume())
    made = host.handle.attach(host.targets(2)).finish()
    assert_fresh(host, made, new)
    assert host.passed("delete") == ["sda"]


def test_map(host: FakeHost) -> None:
    """It is neither returned, nor flushed into the new volume."""
    old, targets = leave(host, with_map=True)
    host.swap(new := new_volume())
    made = host.handle.attach(targets).finish()
    assert_fresh(host, made, new)
    assert not made.map_was_there
    assert set(host.passed("fsync")) == {"wwids"}
    assert host.passed("dm.remove") == [old.uuid]


def test_offline_before_it_is_deleted(host: FakeHost) -> None:
    """So that what somebody wrote for the old volume does not reach the new one."""
    _, targets = leave(host, 1)
    states: list[str] = []
    (disk,) = disks(host)
    host.call("delete", lambda: states.append((disk.folder / "state").read_text()))
    host.swap(new_volume())
    host.handle.attach(targets).finish()
    assert states[0].startswith("offline")


def test_map_of_multipathd(host: FakeHost) -> None:
    old, targets = leave(host, with_map=True)
    host.swap(new := new_volume())
    with FakeMultipathd(host) as daemon:
        made = host.handle.attach(targets).finish()
        assert f"del map {old.wwid}" in daemon.commands
    assert_fresh(host, made, new)


def test_kernel_was_told_but_the_map_was_not(host: FakeHost) -> None:
    """Somebody rescanned the disks: only the map's uuid is left from the old volume."""
    _, targets = leave(host, with_map=True)
    host.swap(new := new_volume())
    for disk in disks(host):
        host._read_pages(disk)
    assert_fresh(host, host.handle.attach(targets).finish(), new)


def test_map_is_open(host: FakeHost) -> None:
    old, targets = leave(host, with_map=True)
    host.dm.maps[old.uuid].open_count = 1
    host.swap(new := new_volume())
    with at_most(4.0):
        error = host.handle.attach(targets).failure()
    assert (error.code, error.phase) == ("IN_USE", "identity")
    for word in (old.wwid, new.wwid, "dm-0"):
        assert word in error.message
    assert list(host.dm.maps) == [old.uuid]
    assert len(host.disks) == 2
    assert not host.passed("delete")


def test_map_is_open_for_a_moment(host: FakeHost) -> None:
    """udev looks at it."""
    old, targets = leave(host, with_map=True)
    item = host.dm.maps[old.uuid]
    item.open_count = 1
    host.swap(new := new_volume())
    operation = host.handle.attach(targets)
    assert not operation.wait(0.1)
    item.open_count = 0
    assert_fresh(host, operation.finish(), new)


def test_map_is_held(host: FakeHost) -> None:
    """By a volume group, say."""
    old, targets = leave(host, with_map=True)
    item = host.dm.maps[old.uuid]
    (host.sys / "block" / item.device / "holders" / "dm-7").touch()
    item.open_count = 1
    host.swap(new_volume())
    error = host.handle.attach(targets).failure()
    assert error.code == "IN_USE"
    assert "dm-0" in error.message
    assert list(host.dm.maps) == [old.uuid]


def test_mounted(host: FakeHost) -> None:
    _, targets = leave(host)
    host.disks["sda"].claimed = True
    host.swap(new_volume())
    error = host.handle.attach(targets).failure()
    assert error.code == "IN_USE"
    assert "sda" in error.message
    assert "sda" in host.disks


def test_held_by_lvm(host: FakeHost) -> None:
    _, targets = leave(host)
    host.dm.make("LVM-abc", [host.disks["sda"].dev], 8, kind="linear", name="vg-lv")
    host.swap(new_volume())
    error = host.handle.attach(targets).failure()
    assert error.code == "IN_USE"
    assert "dm-0 (vg-lv, LVM)" in error.message
    assert list(host.dm.maps) == ["LVM-abc"]


def test_map_has_a_member_that_is_right(host: FakeHost) -> None:
    """Of another portal, which is not ours to judge."""
    old, targets = leave(host, with_map=True)
    other = host.disks["sdb"].volume
    host.swap(new_volume())
    host.disks["sdb"].volume = other
    error = host.handle.attach(targets[:1]).failure()
    assert error.code == "IN_USE"
    assert "sdb" in error.message
    assert list(host.dm.maps) == [old.uuid]


@pytest.mark.parametrize("state", ["offline", "running"])
def test_map_whose_members_do_not_answer(host: FakeHost, state: str) -> None:
    """Those that run may be its volume all the same; those that are offline are nobody's."""
    old, targets = leave(host, with_map=True)
    for disk in disks(host):
        (disk.folder / "state").write_text(f"{state if disk.name == 'sdb' else 'offline'}\n")
        host.fail("inquiry", errno.EIO, disk.name, times=9)
    host.swap(new := new_volume())
    attach = host.handle.attach(targets)
    if state == "offline":
        assert_fresh(host, attach.finish(), new)
    else:
        error = attach.failure()
        assert (error.code, list(host.dm.maps)) == ("IN_USE", [old.uuid])
        assert "whose other member sdb" in error.message


def test_right_map_with_a_member_that_is_another_disk_now(host: FakeHost) -> None:
    old, targets = leave(host, with_map=True)
    host.disks["sdb"].volume = new_volume()
    error = host.handle.attach(targets).failure()
    assert error.code in ("IN_USE", "IDENTITY")
    assert "sdb" in error.message
    assert list(host.dm.maps) == [old.uuid]


def test_lun_is_gone(host: FakeHost) -> None:
    """And nothing else is there: the disk goes, and the error is that of a missing LUN."""
    _, targets = leave(host, with_map=True)
    for disk in disks(host):
        disk.gone = True
    host._exports.clear()
    error = host.handle.attach(targets).failure()
    assert error.code == "LUN_NOT_FOUND"
    assert not host.disks
    assert not host.dm.maps


def test_lun_is_gone_and_its_map_is_open(host: FakeHost) -> None:
    """One path of a volume in use: the others serve, and nothing is removed."""
    _, targets = leave(host, with_map=True)
    (item,) = host.dm.maps.values()
    item.open_count = 1
    host.disks["sdb"].gone = True
    made = host.handle.attach(targets).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED"]
    assert made.paths[1].error.code == "IN_USE"
    assert made.device == item.device
    assert "sdb" in host.disks


@pytest.mark.parametrize("state", ["offline", "transport-offline"])
def test_down(host: FakeHost, state: str) -> None:
    """The kernel gave the disk up: a new one takes its place."""
    (target,) = host.targets(1)
    host.export()
    disk = host.add_disk(host.add_session(target), 1)
    (disk.folder / "state").write_text(f"{state}\n")
    with at_most(3.0):
        made = host.handle.attach([target]).finish()
    assert made.paths[0].device == "sdb"
    assert "its state is" in made.warnings[0]


def test_running_again(host: FakeHost) -> None:
    """Its session has just come back."""
    (target,) = host.targets(1)
    host.export()
    disk = host.add_disk(host.add_session(target), 1)
    (disk.folder / "state").write_text("transport-offline\n")
    operation = host.handle.attach([target])
    assert not operation.wait(0.1)
    (disk.folder / "state").write_text("running\n")
    assert operation.finish().paths[0].device == "sda"


def test_swapped_again_and_again(host: FakeHost) -> None:
    """Twice it is deleted and scanned again."""
    _, targets = leave(host, 1)
    host.swap(new_volume())
    host.call("inquiry", lambda: host.swap(new_volume()), times=None)
    error = host.handle.attach(targets).failure()
    assert error.code == "IDENTITY"
    assert "stale data for LUN 1" in error.message
    assert len(host.passed("delete")) == 3  # the last is the undoing


def test_delete_fails(host: FakeHost) -> None:
    _, targets = leave(host, 1)
    host.swap(new_volume())
    host.fail("delete", errno.EIO)
    error = host.handle.attach(targets).failure()
    assert (error.code, error.errno) == ("DEVICE", errno.EIO)


def test_elsewhere_is_not_ours(host: FakeHost) -> None:
    """Another LUN of the session, stale as well."""
    host.export(lun=1)
    host.export(lun=2)
    (target,) = host.targets(1)
    session = host.add_session(target)
    host.add_disk(session, 2)
    host.swap(new_volume(), lun=2)
    host.handle.attach([target]).finish()
    assert not host.passed("delete")


def test_cheap_for_new_disks(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    assert sorted(host.passed("inquiry")) == sorted(host.passed("open")) == ["sda", "sdb"]
    assert not host.passed("capacity")


def test_renamed_volume_is_the_same(host: FakeHost) -> None:
    """Its number is; other designators may change."""
    volume, targets = leave(host)
    number = bytes([1, 3, 0, 16]) + bytes.fromhex(volume.number)
    volume.designators = bytes([2, 1, 0, 4]) + b"name" + number
    assert host.handle.attach(targets).finish().wwid == volume.wwid
    assert not host.passed("delete")


# --- sizes ----------------------------------------------------------------------------------------


def test_extended_while_nobody_looked(host: FakeHost) -> None:
    volume, targets = leave(host)
    volume.size *= 2
    made = host.handle.attach([*targets, *host.targets(3)]).finish()
    assert made.size_bytes == volume.size
    assert sorted(host.passed("rescan")) == ["sda", "sdb"]
    assert {path.state for path in made.paths} == {"ACTIVE"}


def test_extended_while_it_is_mounted(host: FakeHost) -> None:
    """A disk in use keeps the size that its user knows."""
    volume, targets = leave(host, 1)
    host.disks["sda"].claimed = True
    volume.size *= 2
    made = host.handle.attach(targets, single_path=True).finish()
    assert made.size_bytes == volume.size // 2
    assert any("was not rescanned, since it is in use" in text for text in made.warnings)
    assert not host.passed("rescan")


@pytest.mark.parametrize("single_path", [False, True])
def test_extended_while_somebody_holds_it(host: FakeHost, single_path: bool) -> None:
    volume, targets = leave(host, 1)
    host.dm.make("LVM-abc", [host.disks["sda"].dev], 8, kind="linear", name="vg-lv")
    volume.size *= 2
    error = host.handle.attach(targets, single_path=single_path).failure()
    assert (error.code, "vg-lv" in error.message) == ("IN_USE", True)
    assert not host.passed("rescan")


def test_smaller_under_a_map(host: FakeHost) -> None:
    """A disk in use is not cut off."""
    volume, targets = leave(host, with_map=True)
    volume.size //= 2
    host.handle.attach(targets).finish()
    assert not host.passed("rescan")


# --- udev -----------------------------------------------------------------------------------------


def test_udev_has_another_volume(host: FakeHost) -> None:
    """multipathd would take the disk into that one's map: it must be seen as a new one."""
    volume, targets = leave(host)
    for disk in disks(host):
        host.udev_entry(disk, new_volume().wwid)
    made = host.handle.attach(targets).finish()
    assert made.wwid == volume.wwid
    assert sorted(host.passed("delete")) == ["sda", "sdb"]


def test_udev_has_another_volume_of_a_disk_in_its_map(host: FakeHost) -> None:
    """The disk stays, and udev is told to look."""
    _, targets = leave(host, with_map=True)
    for disk in disks(host):
        host.udev_entry(disk, new_volume().wwid)
    host.handle.attach(targets).finish()
    assert not host.passed("delete")
    for disk in disks(host):
        assert (disk.folder / "block" / disk.name / "uevent").read_text() == "change"


def test_udev_has_a_name_of_its_own_for_every_disk(host: FakeHost) -> None:
    """From a rule of the site. The new disk is not taken for stale again."""
    volume, targets = leave(host, 1)
    host.udev_entry(disks(host)[0], "Sours")

    def delay(disk: Disk) -> float:
        host.udev_entry(disk, "Sours")
        return 0.0

    host.device_delay = delay
    assert host.handle.attach(targets).finish().wwid == volume.wwid
    assert host.passed("delete") == ["sda"]


def test_udev_has_another_name_of_the_disk(host: FakeHost) -> None:
    volume, targets = leave(host)
    number = bytes([1, 3, 0, 16]) + bytes.fromhex(volume.number)
    volume.designators = bytes([2, 1, 0, 10]) + b"LIO-ORG  v" + number
    for disk in disks(host):
        host.udev_entry(disk, "1LIO-ORG_v")
    host.handle.attach(targets).finish()
    assert not host.passed("delete")


def test_single_path(host: FakeHost) -> None:
    _, targets = leave(host)
    host.swap(new := new_volume())
    made = host.handle.attach(targets, single_path=True).finish()
    assert made.wwid == new.wwid
    assert until(lambda: len(host.passed("delete")) == 1)
    assert IQN in {session.iqn for session in host.sessions.values()}


def test_extended_while_a_program_has_it_open(host: FakeHost) -> None:
    """Neither a mount nor a holder, and a user all the same."""
    volume, targets = leave(host, 1)
    file = host.open_in(4711, "qemu", "sda")
    volume.size *= 2
    made = host.handle.attach(targets, single_path=True).finish()
    assert made.size_bytes == volume.size // 2
    assert any("open in qemu" in text for text in made.warnings)
    assert not host.passed("rescan")
    file.close()
    assert host.handle.attach(targets, single_path=True).finish().size_bytes == volume.size


def test_another_volume_after_the_rescan(host: FakeHost) -> None:
    volume, targets = leave(host, 1)
    volume.size *= 2
    host.call("rescan", lambda: host.swap(new_volume(volume.size)))
    error = host.handle.attach(targets).failure()
    assert error.code == "IDENTITY"
    assert not host.dm.maps
