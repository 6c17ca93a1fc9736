# SPDX-License-Identifier: Apache-2.0
"""Detach on the simulated host: no write is lost, nobody's session is taken."""

from __future__ import annotations

import errno
import itertools
import threading
import time

import pytest

from fake.dm import MAJOR, Map
from fake.host import (
    IQN,
    NET,
    SIZE,
    FakeHost,
    Gate,
    OpenFile,
    at_most,
    designator,
    new_volume,
    until,
)
from fake.iscsid import LOGIN, LOGOUT, Action, Answer, Hang, Mute, Request
from fake.library import PATIENCE, Failure, Target
from fake.multipathd import FakeMultipathd

SECTORS = SIZE // 512
POINTS = ("fsync", "dm.remove", "delete")


def order(host: FakeHost) -> list[str]:
    return [point for point, name in host.calls if point in POINTS and name != "wwids"]


def flushed(host: FakeHost) -> list[str]:
    return [name for name in host.passed("fsync") if name != "wwids"]


def test_detach(host: FakeHost) -> None:
    host.export()
    device = host.handle.attach(host.targets(3)).finish().device
    made = host.handle.detach(host.targets(3)).finish()
    assert made.map_removed
    assert (made.devices_removed, made.sessions_removed, made.sessions_kept) == (3, 3, 0)
    assert not made.warnings
    assert host.clean
    assert order(host) == ["fsync", "dm.remove", "delete", "delete", "delete"]
    assert ("fsync", device) in host.calls
    times = made.times
    parts = (times.prepare_ns, times.flush_ns, times.unmap_ns, times.delete_ns, times.logout_ns)
    assert sum(parts) <= times.total_ns


def test_twice(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.handle.detach(host.targets(2)).finish()
    made = host.handle.detach(host.targets(2)).finish()
    assert not made.map_removed
    assert (made.devices_removed, made.sessions_removed, made.sessions_kept) == (0, 0, 0)


def test_never_attached(host: FakeHost) -> None:
    made = host.handle.detach(host.targets(2)).finish()
    assert not made.map_removed
    assert not host.iscsid.requests


def test_at_once(host: FakeHost) -> None:
    """The same detach from many threads: all succeed."""
    host.export()
    host.handle.attach(host.targets(3)).finish()
    operations = [host.handle.detach(host.targets(3)) for _ in range(6)]
    for operation in operations:
        operation.finish()
    assert host.clean or host.handle.detach(host.targets(3)).finish().sessions_removed


def test_again_and_again(host: FakeHost) -> None:
    volume = host.export()
    for _ in range(5):
        assert host.handle.attach(host.targets(2)).finish().wwid == volume.wwid
        host.handle.detach(host.targets(2)).finish()
        assert host.clean


def test_other_volume_keeps_the_session(host: FakeHost) -> None:
    host.export(lun=1)
    kept = host.export(lun=2)
    for lun in (1, 2):
        host.handle.attach(host.targets(2, lun=lun)).finish()
    made = host.handle.detach(host.targets(2, lun=1)).finish()
    assert (made.devices_removed, made.sessions_removed, made.sessions_kept) == (2, 0, 2)
    assert list(host.dm.maps) == [kept.uuid]


def test_device_of_another_kind_keeps_the_session(host: FakeHost) -> None:
    """A disk whose block device is not there yet uses the session all the same."""
    host.export(lun=1)
    host.handle.attach(host.targets(1, lun=1)).finish()
    host.export(lun=2)
    host.device_delay = lambda _: None
    (session,) = host.sessions.values()
    host.scan(session.host, 0, 0, 2)
    made = host.handle.detach(host.targets(1, lun=1)).finish()
    assert (made.sessions_removed, made.sessions_kept) == (0, 1)


def test_attach_in_progress_keeps_the_session(host: FakeHost) -> None:
    """It has no disk yet, but holds the session."""
    host.export(lun=1)
    volume = host.export(lun=2)
    host.handle.attach(host.targets(2, lun=1)).finish()
    gate = host.block("scan", times=None)
    attach = host.handle.attach(host.targets(2, lun=2))
    assert gate.reached()
    made = host.handle.detach(host.targets(2, lun=1)).finish()
    assert (made.sessions_removed, made.sessions_kept) == (0, 2)
    gate.release()
    assert attach.finish().wwid == volume.wwid
    assert len(host.sessions) == 2


def test_attach_during_the_logout(host: FakeHost) -> None:
    """It waits for the end of the logout, then logs in anew."""
    volume = host.export()
    host.handle.attach(host.targets(2)).finish()
    host.iscsid.logout_delay = 0.3
    detach = host.handle.detach(host.targets(2))
    assert until(lambda: len(host.iscsid.of(LOGOUT)) == 2)
    attach = host.handle.attach(host.targets(2))
    assert detach.finish().sessions_removed == 2
    made = attach.finish()
    assert made.wwid == volume.wwid
    assert [path.session_was_there for path in made.paths] == [False] * 2
    assert host.logins == 4


def test_part_of_the_paths(host: FakeHost) -> None:
    """The map goes, with the paths that were named; the others stay as disks."""
    host.export()
    host.handle.attach(host.targets(3)).finish()
    host.handle.detach(host.targets(2)).finish()
    assert not host.dm.maps
    assert len(host.disks) == 1
    host.handle.detach(host.targets(3)).finish()
    assert host.clean


def test_two_at_once_share_a_session(host: FakeHost) -> None:
    """Each has a session of its own beside it, whose logout takes time: the shared one goes too."""
    shared, one, two = host.targets(3)
    for lun in (1, 2):
        host.export(lun=lun)
    first = [shared, one]
    second = [target._replace(lun=2) for target in (shared, two)]
    host.handle.attach(first).finish()
    host.handle.attach(second).finish()
    host.iscsid.logout_delay = 0.2
    operations = [host.handle.detach(first), host.handle.detach(second)]
    removed = sum(operation.finish().sessions_removed for operation in operations)
    assert removed >= 2
    assert until(lambda: host.clean)


def test_attach_that_fails_leaves_no_session(host: FakeHost) -> None:
    """A detach left the session to an attach that used it, and then failed."""
    host.export(lun=1)
    host.handle.attach(host.targets(2, lun=1)).finish()
    gate = host.block("scan", times=None)
    attach = host.handle.attach(host.targets(2, lun=2))
    assert gate.reached()
    assert host.handle.detach(host.targets(2, lun=1)).finish().sessions_kept == 2
    gate.release()
    assert attach.failure().code == "LUN_NOT_FOUND"
    assert until(lambda: host.clean)


# --- in use ---------------------------------------------------------------------------------------


def test_open_map(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    (item,) = host.dm.maps.values()
    item.open_count = 1
    with at_most(1.5):
        error = host.handle.detach(host.targets(2), timeout=0.5 * PATIENCE).failure()
    assert error.code == "IN_USE"
    assert order(host) == []
    assert len(host.disks) == 2
    item.open_count = 0
    host.handle.detach(host.targets(2)).finish()
    assert host.clean


def test_open_for_a_moment(host: FakeHost) -> None:
    """udev looks at it."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    (item,) = host.dm.maps.values()
    item.open_count = 1
    threading.Timer(0.2, setattr, (item, "open_count", 0)).start()
    assert host.handle.detach(host.targets(2)).finish().map_removed


def test_opened_after_the_flush(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    (item,) = host.dm.maps.values()
    host.call("fsync", lambda: setattr(item, "open_count", 1))
    error = host.handle.detach(host.targets(2), timeout=0.5 * PATIENCE).failure()
    assert error.code == "IN_USE"
    assert host.dm.maps
    assert len(host.disks) == 2


def test_held_by_something_else(host: FakeHost) -> None:
    """LVM on the bare disk."""
    host.export()
    targets = host.targets(2)
    disks = [host.add_disk(host.add_session(target), 1) for target in targets]
    host.dm.make("LVM-x", [disks[0].dev], 8, kind="linear")
    error = host.handle.detach(targets).failure()
    assert error.code == "IN_USE"
    assert "dm-0" in error.message
    assert len(host.disks) == 2


def test_disk_without_a_map(host: FakeHost) -> None:
    """Left by a crash between login and map: flushed and removed."""
    host.export()
    targets = host.targets(2)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    made = host.handle.detach(targets).finish()
    assert not made.map_removed
    assert sorted(host.passed("fsync")) == ["sda", "sdb"]
    assert (made.devices_removed, made.sessions_removed) == (2, 2)


def test_mounted_disk_without_a_map(host: FakeHost) -> None:
    host.export()
    (target,) = host.targets()
    host.add_disk(host.add_session(target), 1).claimed = True
    with at_most(1.5):
        error = host.handle.detach([target], timeout=0.5 * PATIENCE).failure()
    assert error.code == "IN_USE"
    assert host.disks


def opened_disk(host: FakeHost) -> tuple[Target, OpenFile]:
    """A disk without a map, which a program has open."""
    host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    return target, host.open_in(4711, "qemu-kvm", disk.name)


@pytest.mark.parametrize("force", [False, True], ids=["without force", "force"])
def test_disk_that_a_program_has_open(host: FakeHost, force: bool) -> None:
    """Without claiming it: the kernel would delete it under the program."""
    target, opened = opened_disk(host)
    with at_most(1.5):
        error = host.handle.detach([target], timeout=0.5 * PATIENCE, force=force).failure()
    assert error.code == "IN_USE"
    words = "sda is in use: open in qemu-kvm (pid 4711); nothing was removed"
    assert error.message == words
    assert order(host) == []
    assert len(host.sessions) == 1
    opened.close()
    host.handle.detach([target]).finish()
    assert host.clean


def test_dead_disk_that_a_program_has_open_with_force(host: FakeHost) -> None:
    """It may come back as another volume, which the program would write to."""
    target, _ = opened_disk(host)
    (host.disks["sda"].folder / "state").write_text("offline\n")
    error = host.handle.detach([target], timeout=2.0, force=True).failure()
    assert [found.code for found in error.detachment.errors] == ["IN_USE"]
    assert "open in qemu-kvm (pid 4711)" in error.message
    assert error.detachment.flush == "UNKNOWN"
    assert host.clean


def test_disk_that_a_program_has_open_for_a_moment(host: FakeHost) -> None:
    target, opened = opened_disk(host)
    threading.Timer(0.2, opened.close).start()
    assert host.handle.detach([target]).finish().devices_removed == 1


def test_disk_that_multipathd_looks_at(host: FakeHost) -> None:
    """It may have a disk open that it does not use; neither do other files count."""
    target, opened = opened_disk(host)
    opened.close()
    host.open_in(4711, "multipathd", "sda")
    host.open_in(4712, "qemu-kvm", "sdaa")
    assert host.handle.detach([target]).finish().devices_removed == 1


def test_partition_of_a_disk_that_a_program_has_open(host: FakeHost) -> None:
    target, opened = opened_disk(host)
    opened.close()
    host.make_partition(host.disks["sda"], 1)
    host.open_in(4711, "mkfs.ext4", "sda1")
    error = host.handle.detach([target], timeout=0.5 * PATIENCE).failure()
    assert "sda is in use: open in mkfs.ext4 (pid 4711)" in error.message


def test_programs_that_cannot_be_looked_at(host: FakeHost) -> None:
    """Nothing is known, so nothing is done."""
    target, opened = opened_disk(host)
    with host.denied("4711/fd"):
        error = host.handle.detach([target], timeout=0.5 * PATIENCE, force=True).failure()
    assert (error.code, error.errno) == ("IN_USE", errno.EMFILE)
    host.fail("opened", errno.EIO)
    error = host.handle.detach([target]).failure()
    assert (error.code, error.errno) == ("IN_USE", errno.EIO)
    assert host.disks
    opened.close()


def test_programs_that_may_not_be_looked_at(host: FakeHost) -> None:
    """Without CAP_SYS_PTRACE or CAP_DAC_READ_SEARCH: force goes on, and tells."""
    target, _ = opened_disk(host)
    with host.denied("4711/fd", errno.EACCES):
        error = host.handle.detach([target]).failure()
        assert (error.code, error.errno) == ("IN_USE", errno.EACCES)
        assert "qemu-kvm (pid 4711) has sda open; nothing was removed" in error.message
        assert host.disks
        made = host.handle.detach([target], force=True).finish()
    assert made.devices_removed == 1
    (warning,) = made.warnings
    assert "CAP_SYS_PTRACE" in warning


@pytest.mark.parametrize("stat", ["S 2 0 0 0 -1 69238880 0", "Z 1 7 7 0 -1 4227148 0"])
def test_processes_without_descriptors_may_be_denied(host: FakeHost, stat: str) -> None:
    """The kernel's threads, and those that have ended."""
    target, _ = opened_disk(host)
    (host.root / "proc/4711/stat").write_text(f"4711 (a) R (b) {stat} 0\n")
    with host.denied("4711/fd", errno.EACCES):
        assert host.handle.detach([target]).finish().devices_removed == 1


def test_file_that_is_named_like_the_disk(host: FakeHost) -> None:
    """Shared memory lies below /dev, too."""
    target, opened = opened_disk(host)
    opened.close()
    (host.dev / "shm").mkdir()
    host.open_in(4711, "qemu-kvm", "shm/sda")
    assert host.handle.detach([target]).finish().devices_removed == 1


@pytest.mark.parametrize("force", [False, True], ids=["without force", "force"])
def test_disk_comes_into_a_map_after_the_flush(host: FakeHost, force: bool) -> None:
    """multipathd's, or another attach's: it is not deleted under it."""
    volume = host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    host.call("fsync", lambda: host.dm.make(volume.uuid, [disk.dev], SECTORS) and None)
    error = host.handle.detach([target], force=force).failure()
    assert (error.code, error.phase, error.retryable) == ("IN_USE", "delete", True)
    assert f"held by {volume.uuid} (dm-0); it was not deleted" in error.message
    assert host.disks
    assert host.sessions
    made = host.handle.detach([target]).finish()
    assert made.map_removed
    assert host.clean


def test_last_look_before_a_deletion_fails(host: FakeHost) -> None:
    """No descriptor is free: it may be in a map by now."""
    volume = host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)

    def make() -> None:
        host.dm.make(volume.uuid, [disk.dev], SECTORS)
        host.fail("open", errno.EMFILE)

    host.call("fsync", make)
    error = host.handle.detach([target]).failure()
    assert (error.code, error.phase, error.errno) == ("IN_USE", "delete", errno.EMFILE)
    assert host.disks
    assert host.sessions


def test_disk_is_mounted_elsewhere_after_the_flush(host: FakeHost) -> None:
    """In another mount namespace: nobody can be named, and yet it stays."""
    host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    host.call("fsync", lambda: setattr(disk, "claimed", True))
    error = host.handle.detach([target], timeout=1.0 * PATIENCE).failure()
    assert (error.code, error.phase) == ("IN_USE", "delete")
    assert "another mount namespace; it was not deleted" in error.message
    assert host.disks
    assert host.sessions


def test_mount_whose_source_is_only_named_so(host: FakeHost) -> None:
    """As a file system of no device may be: the disk itself is free."""
    host.export()
    (target,) = host.targets()
    host.add_disk(host.add_session(target), 1)
    with (host.root / "proc/self/mountinfo").open("a") as file:
        file.write("36 1 0:77 / /old rw shared:1 - fuse.x /dev/sda rw\n")
    assert host.handle.detach([target]).finish().devices_removed == 1
    assert host.clean


def test_mounted_disk_looks_at_no_program(host: FakeHost) -> None:
    """All of them would be looked at again and again for nothing."""
    host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    disk.claimed = True
    host.mount(disk.dev, "/srv")
    with host.denied("4711/fd"):
        host.open_in(4711, "qemu-kvm", disk.name)
        error = host.handle.detach([target], timeout=1.5 * PATIENCE).failure()
    assert "sda is in use: mounted on /srv; nothing was removed" in error.message


def test_disk_whose_flush_hangs_with_force(host: FakeHost) -> None:
    """The flush that was given up still claims it: that is no reason to keep it."""
    host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    gate = Gate()

    def hang() -> int:
        disk.claimed = True
        return gate()

    host.call("fsync", hang)
    error = host.handle.detach([target], timeout=2.0, force=True).failure()
    gate.release()
    assert (error.code, error.phase) == ("TIMEOUT", "flush")
    assert error.detachment.devices_removed == 1
    assert host.clean


def test_session_without_a_disk(host: FakeHost) -> None:
    """Left by a crash between login and scan."""
    host.add_session(host.targets()[0])
    made = host.handle.detach(host.targets()).finish()
    assert made.sessions_removed == 1


def attached(host: FakeHost, count: int = 2) -> Map:
    host.export()
    host.handle.attach(host.targets(count)).finish()
    (item,) = host.dm.maps.values()
    return item


@pytest.mark.parametrize(
    ("escaped", "point"), [("/var/lib/x", "/var/lib/x"), (r"/a\040b\134", "/a b\\")]
)
def test_mounted_map(host: FakeHost, escaped: str, point: str) -> None:
    item = attached(host)
    item.open_count = 1
    host.mount((MAJOR, item.minor), escaped)
    host.mount((MAJOR, item.minor + 1), "/elsewhere")
    error = host.handle.detach(host.targets(2), timeout=0.5 * PATIENCE).failure()
    assert error.code == "IN_USE"
    words = f"{item.device} is in use: mounted on {point}; 1 open; nothing was removed"
    assert error.message == words


def test_map_used_as_swap(host: FakeHost) -> None:
    item = attached(host)
    item.open_count = 1
    host.swap_to(f"/dev/{item.device}")
    error = host.handle.detach(host.targets(2), timeout=0.5 * PATIENCE).failure()
    assert "used as swap; 1 open" in error.message


def test_mounted_partition_of_a_disk(host: FakeHost) -> None:
    """Without a map; the kernel knows partitions by numbers of their own."""
    host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    disk.claimed = True
    host.mount(host.make_partition(disk, 1), "/srv")
    error = host.handle.detach([target], timeout=0.5 * PATIENCE).failure()
    assert "sda is in use: mounted on /srv; " in error.message


def test_partition_maps_nobody_uses(host: FakeHost) -> None:
    """Each is flushed, and goes before the map."""
    item = attached(host)
    parts = [host.dm.make_part(item, number) for number in (1, 2)]
    made = host.handle.detach(host.targets(2)).finish()
    assert made.map_removed
    assert host.clean
    assert sorted(flushed(host)[:2]) == sorted(part.device for part in parts)
    assert flushed(host)[2:] == [item.device]
    assert sorted(host.passed("dm.remove")) == sorted([*(p.uuid for p in parts), item.uuid])


def test_partition_map_comes_back(host: FakeHost) -> None:
    """kpartx, which udev started, comes late."""
    item = attached(host)
    host.call("dm.remove", lambda: host.dm.make_part(item, 1) and None, item.uuid)
    assert host.handle.detach(host.targets(2)).finish().map_removed
    assert host.clean


def test_partition_map_in_use(host: FakeHost) -> None:
    item = attached(host)
    part = host.dm.make_part(item, 1)
    volume = host.dm._create("vg0-lv", "LVM-x")
    volume.below = part
    part.open_count = 1
    host.map_holds(volume, part)
    error = host.handle.detach(host.targets(2), timeout=0.5 * PATIENCE).failure()
    assert error.code == "IN_USE"
    assert "is in use: partition map p1 (dm-1) held by vg0-lv (dm-2); 1 open" in error.message
    assert order(host) == []


def test_unreadable(host: FakeHost) -> None:
    """No descriptor is free: nothing is known, so nothing is done and no success is told."""
    item = attached(host)
    for part in ("class/iscsi_session", "iscsi_session/session", "/device", "holders", "dm/uuid"):
        with host.denied(part):
            error = host.handle.detach(host.targets(2)).failure()
        assert (error.code, error.errno) == ("SYSTEM", errno.EMFILE), part
    for part in (f"block/{item.device}", "slaves"):
        with host.denied(part):
            error = host.handle.detach(host.targets(2), whole_map=True).failure()
        assert (error.code, error.errno) == ("SYSTEM", errno.EMFILE), part
    assert order(host) == []
    assert len(host.disks) == 2
    host.handle.detach(host.targets(2)).finish()
    assert host.clean


def test_map_made_since_the_disks_were_found(host: FakeHost) -> None:
    """multipathd makes it again between the two: it is what is to be detached."""
    volume = host.export()
    targets = host.targets(2)
    disks = [host.add_disk(host.add_session(target), 1) for target in targets]

    def make() -> int:
        host.dm.make(volume.uuid, [disk.dev for disk in disks], SECTORS)
        return 0

    host.call("open", make)
    made = host.handle.detach(targets).finish()
    assert made.map_removed
    assert (made.devices_removed, made.sessions_removed) == (2, 2)
    assert host.clean


def test_map_that_another_process_removes(host: FakeHost) -> None:
    """It has no name any more, and still has its disks: who removes it is waited for."""
    item = attached(host)
    other = host.open()
    gate = host.block("dm.remove")
    first = other.detach(host.targets(2))
    assert gate.reached()
    with host.denied("dm/uuid", errno.EIO):
        second = host.handle.detach(host.targets(2))
        assert not second.wait(0.2)
    gate.release()
    assert first.finish().map_removed
    assert second.finish().devices_removed == 0
    assert item.uuid not in host.dm.maps
    assert host.clean


def test_two_handles(host: FakeHost) -> None:
    """As two processes: the second waits for the lock of the WWID, then finds nothing."""
    attached(host)
    other = host.open()
    gate = host.block("fsync")
    first = host.handle.detach(host.targets(2))
    assert gate.reached()
    second = other.detach(host.targets(2))
    error = other.detach(host.targets(2), timeout=0.3).failure()
    assert error.code == "TIMEOUT"
    assert not second.wait(0.2)
    assert len(flushed(host)) == 1
    gate.release()
    assert first.finish().devices_removed == 2
    assert second.finish().devices_removed == 0
    assert host.clean


# --- force ----------------------------------------------------------------------------------------


def kill_paths(host: FakeHost, item: Map) -> None:
    host.fail("ready", errno.EIO, times=None)
    item.failed = set(item.members)


def test_flush_fails_with_force(host: FakeHost) -> None:
    attached(host)
    host.fail("fsync", errno.EIO)
    error = host.handle.detach(host.targets(2), force=True).failure()
    assert (error.code, error.errno) == ("FLUSH", errno.EIO)
    made = error.detachment
    assert made.flush == "FAILED"
    assert made.map_removed
    assert [item.code for item in made.errors] == ["FLUSH"]
    assert (made.devices_removed, made.sessions_removed) == (2, 2)
    assert host.clean


def test_nothing_to_force(host: FakeHost) -> None:
    item = attached(host)
    made = host.handle.detach(host.targets(2), force=True).finish()
    assert (made.flush, made.errors) == ("DONE", [])
    assert item.uuid not in host.dm.maps
    made = host.handle.detach(host.targets(2), force=True).finish()
    assert made.flush == "NOT_NEEDED"


def test_flush_hangs(host: FakeHost) -> None:
    """Nothing is removed, and nobody says that it was flushed."""
    attached(host)
    gate = host.block("fsync")
    with at_most(2.0):
        error = host.handle.detach(host.targets(2), timeout=1.0).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "flush")
    assert "flush: unknown" in error.message
    assert order(host) == ["fsync"]
    gate.release()
    assert len(host.disks) == 2


def test_flush_hangs_with_force(host: FakeHost) -> None:
    attached(host)
    gate = host.block("fsync")
    with at_most(3.0):
        error = host.handle.detach(host.targets(2), timeout=2.0, force=True).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "flush")
    assert error.detachment.flush == "UNKNOWN"
    assert host.clean
    gate.release()


def test_no_path_left(host: FakeHost) -> None:
    """A queueing map: the flush would never end, so it is not begun."""
    item = attached(host)
    host.dm.queue(item, True)
    kill_paths(host, item)
    with at_most(1.0):
        error = host.handle.detach(host.targets(2)).failure()
    assert error.code == "FLUSH"
    assert "no path of dm-0 is usable and it queues I/O" in error.message
    assert "force" in error.message
    assert order(host) == []
    assert not host.dm.messages


def test_paths_that_work_again_are_taken_back(host: FakeHost) -> None:
    """Nobody did since they failed: no multipathd runs, and the one who attached is gone."""
    item = attached(host)
    host.dm.queue(item, True)
    item.failed = set(item.members)
    made = host.open().detach(host.targets(2)).finish()
    assert made.flush == "DONE"
    assert sorted(host.dm.messages) == ["reinstate_path 8:0", "reinstate_path 8:16"]
    assert flushed(host) == [item.device]
    assert host.clean


@pytest.mark.parametrize("running", [False, True], ids=["alone", "multipathd"])
def test_no_path_left_with_force(host: FakeHost, running: bool) -> None:
    item = attached(host)
    host.dm.queue(item, True)
    kill_paths(host, item)
    with FakeMultipathd(host) as daemon:
        if not running:
            daemon.stop()
        error = host.handle.detach(host.targets(2), force=True).failure()
        assert ("disablequeueing map dm-0" in daemon.commands) == running
    assert error.code == "FLUSH"
    assert error.detachment.flush == "FAILED"
    assert host.clean
    assert "fail_if_no_path" in host.dm.messages
    assert not flushed(host)


def test_stuck_writer_with_force(host: FakeHost) -> None:
    """It has the map open until its I/O fails."""
    item = attached(host)
    item.open_count = 1
    host.dm.queue(item, True)
    kill_paths(host, item)
    host.call("dm.message", lambda: setattr(item, "open_count", 0))
    error = host.handle.detach(host.targets(2), force=True).failure()
    assert [found.code for found in error.detachment.errors] == ["FLUSH"]
    assert host.clean


def test_stuck_writer_whose_paths_fail_late_with_force(host: FakeHost) -> None:
    """When the time for the flush is over: the removal looks again."""
    item = attached(host)
    item.open_count = 1
    host.dm.queue(item, True)
    timer = threading.Timer(2.0, kill_paths, (host, item))
    timer.start()
    host.call("dm.message", lambda: setattr(item, "open_count", 0))
    error = host.handle.detach(host.targets(2), timeout=4.0, force=True).failure()
    timer.join()
    assert [found.code for found in error.detachment.errors] == ["FLUSH"]
    assert error.detachment.flush == "FAILED"
    assert host.clean


def test_mounted_without_a_path_with_force(host: FakeHost) -> None:
    """Its disks may come back as another volume: they go; the map when it is unmounted."""
    item = attached(host)
    item.open_count = 1
    host.dm.queue(item, True)
    kill_paths(host, item)
    with at_most(5.0):
        error = host.handle.detach(host.targets(2), timeout=4.0, force=True).failure()
    assert [found.code for found in error.detachment.errors] == ["FLUSH", "IN_USE"]
    assert not error.detachment.map_removed
    assert (error.detachment.devices_removed, error.detachment.sessions_removed) == (2, 2)
    assert not host.sessions
    assert not host.dm.queues(item)
    host.dm.close(item)
    assert host.clean


def test_open_map_with_force(host: FakeHost) -> None:
    """It has paths: it stays, with its disks and sessions."""
    item = attached(host)
    item.open_count = 1
    host.mount((MAJOR, item.minor), "/mnt")
    error = host.handle.detach(host.targets(2), timeout=2.0, force=True).failure()
    assert error.code == "IN_USE"
    assert "mounted on /mnt" in error.message
    assert order(host) == []
    assert len(host.disks) == 2
    assert (error.detachment.sessions_removed, error.detachment.sessions_kept) == (0, 2)


@pytest.mark.parametrize("running", [False, True], ids=["alone", "multipathd"])
def test_queueing_is_restored(host: FakeHost, running: bool) -> None:
    """The paths went after the flush, then somebody opened the map."""
    item = attached(host)
    host.dm.queue(item, True)
    host.call("fsync", lambda: kill_paths(host, item))
    host.fail("dm.remove", errno.EBUSY, times=None)
    with FakeMultipathd(host) as daemon:
        daemon.script("del map", *["fail\n"] * 50)
        if not running:
            daemon.stop()
        error = host.handle.detach(host.targets(2), timeout=1.0 * PATIENCE).failure()
        assert ("restorequeueing map dm-0" in daemon.commands) == running
    assert error.code == "IN_USE"
    assert host.dm.queues(item)
    assert host.dm.messages.count("fail_if_no_path") == 1


def test_delete_fails_with_force(host: FakeHost) -> None:
    """The session takes the disk along, if it does not work."""
    attached(host, 3)
    (host.disks["sdb"].folder / "state").write_text("offline\n")
    host.fail("delete", errno.EIO, "sdb")
    error = host.handle.detach(host.targets(3), force=True).failure()
    assert error.code == "DEVICE"
    assert (error.detachment.devices_removed, error.detachment.sessions_removed) == (2, 3)
    assert host.clean


def test_delete_hangs_with_force(host: FakeHost) -> None:
    attached(host)
    (host.disks["sdb"].folder / "state").write_text("cancel\n")  # as the kernel has it then
    gate = host.block("delete", "sdb")
    with at_most(3.0):
        error = host.handle.detach(host.targets(2), timeout=2.0, force=True).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "delete")
    assert not host.sessions
    gate.release()


def test_flush_and_removal_fail_with_force(host: FakeHost) -> None:
    """A writer had it open for the time of the flush: the removal flushes, and tells of both."""
    item = attached(host)
    item.open_count = 1
    timer = threading.Timer(2.0, setattr, (item, "open_count", 0))
    timer.start()
    host.fail("fsync", errno.EIO)
    host.fail("dm.remove", errno.EIO, item.uuid)
    error = host.handle.detach(host.targets(2), timeout=4.0, force=True).failure()
    timer.join()
    assert [found.code for found in error.detachment.errors] == ["FLUSH", "MAP"]
    assert error.code == "FLUSH"
    assert error.detachment.flush == "FAILED"
    assert len(host.disks) == 2


@pytest.mark.parametrize("force", [False, True], ids=["without force", "force"])
def test_cancelled_after_an_error(host: FakeHost, force: bool) -> None:
    """The cancellation is what is raised; what failed before it is told too."""
    attached(host)
    host.fail("delete", errno.EIO, "sda")
    gate = host.block("delete", "sdb")
    operation = host.handle.detach(host.targets(2), force=force)
    assert gate.reached()
    assert until(lambda: "sda" in host.passed("delete"))
    time.sleep(0.1)  # nobody tells that the answer has arrived
    operation.cancel()
    error = operation.failure()
    gate.release()
    assert error.code == "CANCELLED"
    assert "the map is gone, 0 of 2 SCSI devices are deleted" in error.message
    if force:
        assert [found.code for found in error.detachment.errors] == ["CANCELLED", "DEVICE"]
    else:
        assert error.message.count("cancelled") == 1
        assert "; and deleting SCSI device sda failed" in error.message


def test_timeout_tells_that_the_map_was_kept(host: FakeHost) -> None:
    """In use; the logout of the other volume's session takes too long."""
    item = attached(host)
    host.mount((MAJOR, item.minor), "/mnt")
    item.open_count = 1
    targets = host.targets(3)
    host.add_session(targets[2])
    host.iscsid.script(LOGOUT, Hang(), Hang(), Hang())
    error = host.handle.detach(targets, timeout=2.0, force=True).failure()
    words = [found.message for found in error.detachment.errors if found.code == "TIMEOUT"]
    assert "the map was kept, 0 of 2 SCSI devices are deleted" in words[0]
    assert len(host.disks) == 2


@pytest.mark.parametrize("force", [False, True], ids=["without force", "force"])
def test_another_volumes_map_made_since_the_disks_were_found(host: FakeHost, force: bool) -> None:
    """Found again, nothing may be done: no force goes round between looking and flushing."""
    host.export()
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)
    other = new_volume()
    host.call("open", lambda: host.dm.make(other.uuid, [disk.dev], SECTORS) and None)
    with at_most(3.0):
        error = host.handle.detach([target], timeout=2.0, force=force).failure()
    assert error.code == "IN_USE"
    assert "another volume's map" in error.message
    assert len(host.passed("open")) < 5
    assert host.disks
    assert host.sessions


def test_lock_fails_the_second_time_with_force(host: FakeHost) -> None:
    """A disk that only udev can name has no lock; the map that it comes into has one."""
    volume = host.export()
    volume.designators = designator(2, 1, b"EXAMPLE disk 1")
    (target,) = host.targets()
    disk = host.add_disk(host.add_session(target), 1)

    def make() -> None:
        host.dm.make(volume.uuid, [disk.dev], SECTORS)
        (host.root / "locks").mkdir()
        (host.root / "locks").chmod(0o777)

    host.call("open", make)
    error = host.handle.detach([target], force=True).failure()
    assert error.code == "SYSTEM"
    assert "cannot lock" in error.message
    assert order(host) == []
    assert volume.uuid in host.dm.maps
    assert host.disks


# --- multipathd -----------------------------------------------------------------------------------


def test_multipathd_lets_go(host: FakeHost) -> None:
    """It missed one disk's event."""
    attached(host)
    with FakeMultipathd(host) as daemon:
        daemon.lingering = ["sdb"]
        made = host.handle.detach(host.targets(2)).finish()
        assert not made.warnings
        assert not daemon.lingering
        assert [c for c in daemon.commands if c.startswith("del path")] == ["del path sdb"]
        logout = host.iscsid.of(LOGOUT)
        assert len(logout) == 2


def test_multipathd_does_not_let_go(host: FakeHost) -> None:
    attached(host)
    with FakeMultipathd(host) as daemon:
        daemon.lingering = ["sdb"]
        daemon.script("del path", *["fail\n"] * 20)
        made = host.handle.detach(host.targets(2)).finish(limit=10.0)
        assert "sdb" in made.warnings[0]
    assert host.clean


def test_name_of_another_disk(host: FakeHost) -> None:
    """Somebody attached a volume meanwhile, and its disk got the name."""
    attached(host)
    host.export(f"{IQN}x", lun=7)
    with FakeMultipathd(host) as daemon:

        def come_back() -> None:
            host._disk_numbers = itertools.count(1)
            host.add_disk(host.add_session(host.targets(1, iqn=f"{IQN}x", lun=7)[0]), 7)

        daemon.lingering = []
        host.call("delete", lambda: host.call("dm.info", come_back), "sdb")
        made = host.handle.detach(host.targets(2)).finish()
        assert not made.warnings
        assert not [c for c in daemon.commands if c.startswith("del path")]
    assert list(host.disks) == ["sdb"]


# --- failing --------------------------------------------------------------------------------------


def test_flush_fails(host: FakeHost) -> None:
    """Nothing is removed; the same call goes on later."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.fail("fsync", errno.EIO)
    error = host.handle.detach(host.targets(2)).failure()
    assert (error.code, error.phase, error.errno) == ("FLUSH", "flush", errno.EIO)
    assert order(host) == ["fsync"]
    assert len(host.disks) == 2
    assert len(host.dm.maps) == 1
    host.handle.detach(host.targets(2)).finish()
    assert host.clean


def test_remove_fails(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.fail("dm.remove", errno.EIO)
    error = host.handle.detach(host.targets(2)).failure()
    assert (error.code, error.phase) == ("MAP", "unmap")
    assert len(host.disks) == 2


def test_remove_busy_for_a_while(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.fail("dm.remove", errno.EBUSY, times=3)
    assert host.handle.detach(host.targets(2)).finish().map_removed


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_map_made_again(host: FakeHost, late: bool) -> None:
    """multipathd handles an event of a disk on its way out; late: it is at it when they go."""
    volume = host.export()
    host.handle.attach(host.targets(2)).finish()

    def make_again() -> None:
        disks = list(host.disks.values())
        made = host.dm.make(volume.uuid, [disk.dev for disk in disks], SECTORS)
        if late:
            made.active, made.inactive = None, made.active

            def resume() -> None:
                with host.lock:
                    host.dm._swap(made)

            host.call("dm.info", resume, volume.uuid)

    both = threading.Barrier(2, make_again)
    host.call("delete", lambda: both.wait(5.0) and None, times=2)
    made = host.handle.detach(host.targets(2)).finish()
    assert (made.devices_removed, made.sessions_removed) == (2, 2)
    assert host.clean
    assert "fail_if_no_path" in host.dm.messages
    assert not made.warnings


def test_map_of_other_paths_made_again(host: FakeHost) -> None:
    """It has a disk that was not detached: it is somebody's."""
    volume = host.export()
    targets = host.targets(3)
    host.handle.attach(targets[:2]).finish()
    other = host.add_disk(host.add_session(targets[2]), 1)
    host.call("delete", lambda: host.dm.make(volume.uuid, [other.dev], SECTORS) and None)
    made = host.handle.detach(targets[:2]).finish()
    assert made.sessions_removed == 2
    assert list(host.dm.maps) == [volume.uuid]


def test_map_made_again_is_busy(host: FakeHost) -> None:
    volume = host.export()
    host.handle.attach(host.targets(1)).finish()

    def make_again() -> None:
        (disk,) = host.disks.values()
        host.dm.make(volume.uuid, [disk.dev], SECTORS).open_count = 1

    host.call("delete", make_again)
    error = host.handle.detach(host.targets(1), timeout=1.0 * PATIENCE).failure()
    assert error.code == "IN_USE"
    assert "dm-1 is in use: " in error.message
    assert "; 1 open; " in error.message
    assert "its disks are gone" in error.message


def test_delete_fails(host: FakeHost) -> None:
    """The other disks go, no session is logged out under the one that stays."""
    host.export()
    host.handle.attach(host.targets(3)).finish()
    host.fail("delete", errno.EIO, "sdb")
    error = host.handle.detach(host.targets(3)).failure()
    assert (error.code, error.phase, error.errno) == ("DEVICE", "delete", errno.EIO)
    assert list(host.disks) == ["sdb"]
    assert len(host.sessions) == 3
    host.handle.detach(host.targets(3)).finish()
    assert host.clean


def test_disk_goes_by_itself(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.fail("delete", errno.ENODEV, "sdb")
    made = host.handle.detach(host.targets(2), timeout=3.0)
    made.finish()
    assert "sdb" not in host.disks or host.sessions


@pytest.mark.parametrize("error", [9, 28])
def test_logout_fails(host: FakeHost, error: int) -> None:
    """28 is iscsid.safe_logout; after the others the session may still go."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.iscsid.script(LOGOUT, Answer(error), Answer(error))
    found = host.handle.detach(host.targets(2)).failure()
    assert (found.code, found.phase, found.iscsid_code) == ("LOGOUT", "logout", error)
    assert found.address
    assert not host.disks
    assert host.handle.detach(host.targets(2)).finish().sessions_removed == 2
    assert host.clean


def test_every_logout_fails(host: FakeHost) -> None:
    """All are attempted, and all are told of."""
    attached(host, 3)
    host.iscsid.script(LOGOUT, Answer(9), Answer(9), Answer(9))
    found = host.handle.detach(host.targets(3)).failure()
    assert (found.code, found.iscsid_code) == ("LOGOUT", 9)
    assert len(host.iscsid.of(LOGOUT)) == 3
    assert found.message.count("; and session") == 2


def test_logout_of_a_session_that_went(host: FakeHost) -> None:
    """Error 2, and sysfs agrees: that is what was wanted."""
    host.export()
    host.handle.attach(host.targets(1)).finish()

    def gone(_: Request) -> Action:
        (session,) = host.iscsid.sessions.values()
        host._on_logout(session)
        host.iscsid.sessions.clear()
        return Answer(2)

    host.iscsid.handlers[LOGOUT] = gone
    made = host.handle.detach(host.targets(1)).finish()
    assert made.sessions_removed == 1


def test_logout_unanswered(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.iscsid.script(LOGOUT, Hang(), Hang())
    with at_most(2.0):
        error = host.handle.detach(host.targets(2), timeout=1.0).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "logout")


def test_logout_done_but_never_answered(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.iscsid.handlers[LOGOUT] = lambda _: Mute()
    with at_most(3.5):
        assert host.handle.detach(host.targets(2)).finish().sessions_removed == 2
    assert host.clean


def test_several_logouts_done_but_never_answered(host: FakeHost) -> None:
    """Of all sessions to the node."""
    host.export()
    (target,) = host.targets(1)
    for _ in range(2):
        host.add_disk(host.add_session(target), 1)
    host.handle.attach([target]).finish()
    host.iscsid.handlers[LOGOUT] = lambda _: Mute()
    assert host.handle.detach([target]).finish().sessions_removed == 1
    assert host.clean


def test_iscsid_is_down(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    host.iscsid.stop()
    error = host.handle.detach(host.targets(2)).failure()
    assert (error.code, error.phase) == ("ISCSID_DOWN", "logout")
    assert not host.disks
    host.iscsid.start()
    assert host.handle.detach(host.targets(2)).finish().sessions_removed == 2


def test_only_the_given_portals(host: FakeHost) -> None:
    """Another port, another name, another address: neighbours stay."""
    host.export()
    host.export(f"{IQN}x")
    host.handle.attach(host.targets(1)).finish()
    for target in (
        Target(f"{NET}.1.1", 3261, IQN, 1),
        Target(f"{NET}.1.1", 3260, f"{IQN}x", 1),
        Target(f"{NET}.1.11", 3260, IQN, 1),
    ):
        host.add_disk(host.add_session(target), 1)
    made = host.handle.detach(host.targets(1)).finish()
    assert made.sessions_removed == 1
    assert len(host.sessions) == 3
    assert len(host.disks) == 3


def test_session_through_an_unreadable_portal(host: FakeHost) -> None:
    session = host.add_session(host.targets()[0])
    name = f"connection{session.sid}:0"
    path = session.folder / name / "iscsi_connection" / name / "persistent_address"
    path.write_text("<NULL>\n")
    made = host.handle.detach(host.targets()).finish()
    assert made.sessions_removed == 0
    assert host.sessions


def test_bad_request(host: FakeHost) -> None:
    with pytest.raises(Failure, match="targets"):
        host.handle.detach([])
    assert not host.iscsid.of(LOGIN)


def test_another_volumes_map(host: FakeHost) -> None:
    """Somebody built it on our disk: it is not ours to remove."""
    host.export()
    target = host.targets(1)[0]
    disk = host.add_disk(host.add_session(target), 1)
    other = new_volume()
    host.dm.make(other.uuid, [disk.dev], SECTORS)
    error = host.handle.detach([target]).failure()
    assert error.code == "IN_USE"
    assert "another volume's map" in error.message
    assert other.uuid in host.dm.maps
    assert order(host) == []


def test_page_that_cannot_be_read(host: FakeHost) -> None:
    """Whose disk it is cannot be told, so its volume cannot be locked."""
    host.export()
    targets = host.targets(1)
    host.handle.attach(targets, single_path=True).finish()
    (disk,) = host.disks.values()
    page = disk.folder / "vpd_pg83"
    page.unlink()
    page.mkdir()
    error = host.handle.detach(targets).failure()
    assert (error.code, error.errno) == ("SYSTEM", errno.EISDIR)
    assert list(host.disks) == [disk.name]
