# SPDX-License-Identifier: Apache-2.0
"""Attach on the simulated host: disks, identities, maps."""

from __future__ import annotations

import errno
import random
import threading
import time
from typing import Any

import pytest

from fake.host import IQN, NET, SIZE, Disk, FakeHost, Volume, at_most, new_volume, until
from fake.iscsid import LOGOUT
from fake.library import Failure, Target

SECTORS = SIZE // 512


def test_attach(host: FakeHost) -> None:
    volume = host.export()
    made = host.handle.attach(host.targets(4)).finish()
    assert (made.wwid, made.name, made.size_bytes) == (volume.wwid, volume.wwid, SIZE)
    assert not made.map_was_there
    assert not made.multipathd_running
    (warning,) = made.warnings
    assert "multipathd is not running" in warning
    (item,) = host.dm.maps.values()
    assert (made.device, item.uuid) == (item.device, volume.uuid)
    assert item.active is not None
    members = [host.disks[path.device].dev for path in made.paths]
    members_text = "".join(f" {major}:{minor} 1" for major, minor in members)
    assert item.active.params == f"0 1 alua 1 1 service-time 0 4 1{members_text}"
    assert sorted(path.device for path in made.paths) == ["sda", "sdb", "sdc", "sdd"]
    for path, target in zip(made.paths, host.targets(4), strict=True):
        session = host.sessions[path.sid]
        assert (path.address, path.port, path.iqn, path.lun) == target
        assert (session.address, session.disks[1].name) == (target[0], path.device)
        assert (path.host, path.channel, path.target) == (session.host, 0, 0)
        assert path.state == "ACTIVE"
        assert not path.session_was_there
        times = path.times
        assert 0 < times.login_begin_ns <= times.login_end_ns <= times.scan_end_ns
        assert times.scan_end_ns <= times.device_end_ns <= times.identity_end_ns
    times = made.times
    parts = (times.prepare_ns, times.login_ns, times.scan_ns, times.device_ns, times.identity_ns)
    assert sum(parts) + times.map_ns <= times.total_ns
    assert f"/{volume.wwid}/" in (host.root / "multipath" / "wwids").read_text()


def test_twice(host: FakeHost) -> None:
    host.export()
    first = host.handle.attach(host.targets(2)).finish()
    second = host.handle.attach(host.targets(2)).finish()
    assert (second.device, second.wwid) == (first.device, first.wwid)
    assert second.map_was_there
    assert [path.session_was_there for path in second.paths] == [True, True]
    assert host.logins == 2
    assert len(host.passed("scan")) == 2
    assert len(host.passed("dm.create")) == 1


def test_twice_at_once(host: FakeHost) -> None:
    """The same volume, from many threads: one map, nobody fails."""
    host.export()
    host.device_delay = lambda _: random.uniform(0.001, 0.02)
    operations = [host.handle.attach(host.targets(4)) for _ in range(8)]
    assert len({operation.finish().device for operation in operations}) == 1
    assert host.logins == 4
    assert len(host.dm.maps) == 1
    assert len(host.disks) == 4


def test_from_two_handles_at_once(host: FakeHost) -> None:
    """As from two processes: each logs in for itself, iscsid lets one."""
    host.export()
    operations = [host.open().attach(host.targets(4)) for _ in range(3)]
    assert len({operation.finish().device for operation in operations}) == 1
    assert len(host.sessions) == 4
    assert len(host.dm.maps) == 1


def test_more_paths_later(host: FakeHost) -> None:
    """Without multipathd the table is ours to reload."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    made = host.handle.attach(host.targets(4)).finish()
    (item,) = host.dm.maps.values()
    assert len(item.members) == 4
    assert made.map_was_there
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4


def test_fewer_paths_later(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(4)).finish()
    made = host.handle.attach(host.targets(2)).finish()
    assert len(made.paths) == 2
    (item,) = host.dm.maps.values()
    assert len(item.members) == 4


def test_failed_path_in_the_map(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    (item,) = host.dm.maps.values()
    item.failed.add((8, 0))
    made = host.handle.attach(host.targets(2)).finish()
    assert {path.device: path.state for path in made.paths} == {"sda": "INACTIVE", "sdb": "ACTIVE"}


def test_device_comes_later(host: FakeHost) -> None:
    host.export()
    host.device_delay = lambda _: 0.05
    made = host.handle.attach(host.targets(4)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4


def test_events_are_lost(host: FakeHost) -> None:
    """The socket's buffer overran: look at sysfs."""
    host.export()
    host.device_delay = lambda _: None
    operation = host.handle.attach(host.targets(2))
    assert until(lambda: len(host.passed("scan")) == 2)
    for session in host.sessions.values():
        host.appear(session.disks[1], event=False)
    assert not operation.wait(0.1)
    host.uevent("LOST")
    assert operation.finish().path_count == 2


def test_events_are_lost_before_the_disk_can_be_opened(host: FakeHost) -> None:
    """Its own may be among them: it is tried until it can be."""
    host.export()
    host.device_delay = lambda _: None
    operation = host.handle.attach(host.targets(1))
    assert until(lambda: len(host.passed("scan")) == 1)
    (session,) = host.sessions.values()
    disk = session.disks[1]
    host.appear(disk, event=False)
    node = host.dev / disk.name
    node.unlink()
    for _ in range(5):
        host.uevent("LOST")
    assert not operation.wait(0.3)
    node.touch()
    assert operation.finish().path_count == 1


def test_events_are_lost_before_the_block_device_is_there(host: FakeHost) -> None:
    """The kernel says so first, and may drop what comes next."""
    host.export()
    host.device_delay = lambda _: None
    operation = host.handle.attach(host.targets(1), timeout=5.0)
    assert until(lambda: len(host.passed("scan")) == 1)
    host.uevent("LOST")
    assert not operation.wait(0.1)
    (session,) = host.sessions.values()
    host.appear(session.disks[1], event=False)
    assert operation.finish().path_count == 1


def test_event_while_sysfs_cannot_be_read(host: FakeHost) -> None:
    """It does not come again."""
    host.export()
    host.device_delay = lambda _: None
    operation = host.handle.attach(host.targets(1), timeout=5.0)
    assert until(lambda: any(session.disks for session in host.sessions.values()))
    assert not operation.wait(0.1)
    (session,) = host.sessions.values()
    disk = session.disks[1]
    with host.denied(f"target{session.host}:0:0/{disk.hctl}"):
        host.appear(disk)
        assert not operation.wait(0.3)
    assert operation.finish().path_count == 1


def test_disk_that_cannot_be_read_from_sysfs(host: FakeHost) -> None:
    """It was there before, so it is not scanned for, and not taken back."""
    host.export()
    (target,) = host.targets(1)
    session = host.add_session(target)
    disk = host.add_disk(session, 1)
    with host.denied(f"target{session.host}:0:0/{disk.hctl}"):
        error = host.handle.attach([target], timeout=5.0).failure()
    assert (error.code, error.errno) == ("DEVICE", errno.EMFILE)
    assert not host.passed("scan") and not host.passed("delete")
    assert list(host.disks) == [disk.name]


def test_events_of_others(host: FakeHost) -> None:
    """Nonsense, other subsystems, other sessions."""
    host.export()
    host.device_delay = lambda _: None
    operation = host.handle.attach(host.targets(1))
    assert until(lambda: len(host.passed("scan")) == 1)
    (session,) = host.sessions.values()
    disk = session.disks[1]
    here = f"/{(disk.folder / 'block' / disk.name).relative_to(host.sys)}"
    for text in (
        "x",
        "add@/devices/x\0SUBSYSTEM=block\0",
        f"add@{here}\0SUBSYSTEM=scsi\0DEVNAME={disk.name}\0",
        f"add@{here}\0SUBSYSTEM=block\0DEVNAME={disk.name}\0",
        f"remove@{here}\0SUBSYSTEM=block\0DEVNAME={disk.name}\0",
        f"add@{here.replace('session1', 'session11')}\0SUBSYSTEM=block\0DEVNAME={disk.name}\0",
    ):
        host.uevent(text)
    assert not operation.wait(0.1)
    host.appear(disk)
    assert operation.finish().path_count == 1


def test_somebody_elses_scan_is_bringing_the_disk(host: FakeHost) -> None:
    """In sysfs already, and not to be opened yet: its event comes."""
    (target,) = host.targets(1)
    host.export()
    disk = host.add_disk(host.add_session(target), 1)
    node = host.dev / disk.name
    node.unlink()
    operation = host.handle.attach([target])
    assert not operation.wait(0.1)
    node.touch()
    host.announce(disk)
    assert operation.finish().path_count == 1
    assert host.passed("scan") == []


def test_device_never_comes(host: FakeHost) -> None:
    host.export()
    host.device_delay = lambda _: None
    with at_most(2.0):
        error = host.handle.attach(host.targets(2), timeout=1.0).failure()
    assert error.code in ("TIMEOUT", "DEVICE")
    assert until(lambda: host.clean and not host.sessions)


def test_one_device_never_comes(host: FakeHost) -> None:
    """The others suffice when the time for paths is over."""
    host.export()
    host.device_delay = lambda disk: None if disk.session.address == f"{NET}.1.2" else 0.0
    made = host.handle.attach(host.targets(3), timeout=1.0).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "ACTIVE"]
    assert until(lambda: len(host.sessions) == 2)


# --- the LUN --------------------------------------------------------------------------------------


def test_lun_is_missing(host: FakeHost) -> None:
    host.export(lun=2)
    error = host.handle.attach(host.targets(2, lun=1)).failure()
    assert (error.code, error.phase) == ("LUN_NOT_FOUND", "scan")
    assert host.clean
    assert len(host.iscsid.of(LOGOUT)) == 2


def test_lun_is_missing_in_a_session_from_before(host: FakeHost) -> None:
    session = host.add_session(host.targets()[0])
    error = host.handle.attach(host.targets(2)).failure()
    assert error.code == "LUN_NOT_FOUND"
    assert list(host.sessions) == [session.sid]


def test_lun_is_missing_beside_one_in_use(host: FakeHost) -> None:
    volume = host.export(lun=2)
    host.handle.attach(host.targets(2, lun=2)).finish()
    assert host.handle.attach(host.targets(2, lun=1)).failure().code == "LUN_NOT_FOUND"
    assert len(host.sessions) == 2
    assert list(host.dm.maps) == [volume.uuid]


def test_lun_is_missing_while_another_attaches(host: FakeHost) -> None:
    """The one with the LUN holds the session while it needs it, and keeps it."""
    volume = host.export(lun=2)
    gate = host.block("inquiry", times=None)
    good = host.handle.attach(host.targets(2, lun=2))
    assert gate.reached()
    assert host.handle.attach(host.targets(2, lun=1)).failure().code == "LUN_NOT_FOUND"
    gate.release()
    assert good.finish().wwid == volume.wwid
    assert len(host.sessions) == 2


def test_lun_at_one_portal_only(host: FakeHost) -> None:
    host.export(address=f"{NET}.1.1")
    made = host.handle.attach(host.targets(2)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED"]
    assert made.paths[1].error.code == "LUN_NOT_FOUND"
    assert len(host.sessions) == 1


def test_session_lost_during_the_scan(host: FakeHost) -> None:
    """The kernel scans nothing then, and says so to nobody: not mistaken for a missing LUN."""
    volume = host.export()

    def lose() -> None:
        (session,) = host.sessions.values()
        host.set_state(session, "FAILED")
        threading.Timer(0.2, host.set_state, (session, "LOGGED_IN")).start()

    host.call("scan", lose)
    assert host.handle.attach(host.targets()).finish().wwid == volume.wwid


# --- a disk that another process deletes, as a detach does: it is scanned for again ---------------


@pytest.mark.parametrize("there_before", [False, True])
def test_disk_deleted_while_it_is_read(host: FakeHost, there_before: bool) -> None:
    volume = host.export()
    targets = host.targets(2)
    if there_before:
        for target in targets:
            session = host.add_session(target)
            host.scan(session.host, 0, 0, target.lun)
    gate = host.block("inquiry", "sdb")
    attach = host.handle.attach(targets)
    assert gate.reached()
    with host.lock:
        host._vanish(host.disks["sdb"])
    gate.release()
    made = attach.finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE"]
    assert {path.device for path in made.paths} == {"sda", "sdc"}
    assert len(host.dm.maps[volume.uuid].members) == 2


def test_disk_deleted_before_it_is_seen(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a session that others use, too: the first look after the scan finds nothing."""
    host.export()
    targets = host.targets(2)
    session = host.add_session(targets[0])
    scan, lost = host.scan, []

    def scan_and_lose(number: int, *address: int) -> int:
        result = scan(number, *address)
        if number == session.host and not lost:
            with host.lock:
                lost.extend(session.disks.values())
                host._vanish(lost[0])
        return result

    monkeypatch.setattr(host, "scan", scan_and_lose)
    made = host.handle.attach(targets).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE"]
    assert len(host.passed("scan")) == 3


@pytest.mark.parametrize("announced", [False, True], ids=["no block device", "block device"])
def test_disk_that_is_being_deleted(host: FakeHost, announced: bool) -> None:
    """The kernel's scan waits for the rest of the deletion."""
    host.export()
    (target,) = host.targets()
    session = host.add_session(target)
    if not announced:
        host.device_delay = lambda disk: None if disk.name == "sda" else 0.0
    host.scan(session.host, 0, 0, target.lun)
    (going,) = session.disks.values()
    (going.folder / "state").write_text("cancel\n")

    def gone() -> None:
        with host.lock:
            host._vanish(going)

    host.call("scan", gone)
    made = host.handle.attach([target]).finish()
    assert [path.device for path in made.paths] == ["sdb"]


def test_disk_deleted_before_its_event_came(host: FakeHost) -> None:
    host.export()
    host.device_delay = lambda disk: None if disk.name == "sda" else 0.0
    attach = host.handle.attach(host.targets())
    assert until(lambda: any(session.disks for session in host.sessions.values()))
    assert not attach.wait(0.1)
    (session,) = host.sessions.values()
    (disk,) = session.disks.values()
    host.appear(disk, event=False)
    with host.lock:
        host._vanish(disk)
    host.announce(disk)
    assert [path.device for path in attach.finish().paths] == ["sdb"]


def test_disk_deleted_before_it_had_a_block_device(host: FakeHost) -> None:
    """By whose scan brought it; no event of a block device comes."""
    host.export()
    targets = host.targets(1)
    host.device_delay = lambda disk: None if disk.name == "sda" else 0.0
    first = host.handle.attach(targets)
    assert until(lambda: any(session.disks for session in host.sessions.values()))
    second = host.open().attach(targets, timeout=5.0)
    assert not second.wait(0.3)
    first.cancel()
    assert first.failure().code == "CANCELLED"
    assert [path.device for path in second.finish().paths] == ["sdb"]


def test_disk_replaced_by_one_without_a_block_device(host: FakeHost) -> None:
    """It is waited for as any other."""
    host.export()
    gate = host.block("inquiry", "sda")
    attach = host.handle.attach(host.targets(1))
    assert gate.reached()
    host.device_delay = lambda _: None
    (session,) = host.sessions.values()
    with host.lock:
        host._vanish(host.disks["sda"])
    host.scan(session.host, 0, 0, 1)
    gate.release()
    assert not attach.wait(0.2)
    host.appear(session.disks[1])
    assert [path.device for path in attach.finish().paths] == ["sdb"]


@pytest.mark.parametrize(("number", "code"), [(errno.EACCES, "PERMISSION"), (errno.EIO, "DEVICE")])
def test_scan_fails(host: FakeHost, number: int, code: str) -> None:
    host.export()
    host.fail("scan", number, times=None)
    error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.errno) == (code, number)
    assert host.clean


# --- identity -------------------------------------------------------------------------------------


def test_odd_one_out(host: FakeHost) -> None:
    volume, other = host.export(), new_volume()
    host.export(volume=other, address=f"{NET}.1.2")
    made = host.handle.attach(host.targets(4)).finish()
    assert made.wwid == volume.wwid
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "ACTIVE", "ACTIVE"]
    error = made.paths[1].error
    assert error.code == "IDENTITY"
    assert other.wwid in error.message
    assert volume.wwid in error.message
    assert any(other.wwid in text for text in made.warnings)
    (item,) = host.dm.maps.values()
    assert len(item.members) == 3
    assert until(lambda: len(host.sessions) == 3)
    assert until(lambda: len(host.disks) == 3)


def test_other_size(host: FakeHost) -> None:
    """The same number with another size is another disk."""
    volume = host.export()
    host.export(volume=Volume(volume.number, 2 * SIZE), address=f"{NET}.1.3")
    made = host.handle.attach(host.targets(3)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE", "FAILED"]


def test_tie(host: FakeHost) -> None:
    host.export()
    host.export(address=f"{NET}.1.1")
    host.export(volume=host._exports[IQN, 1, f"{NET}.1.1"], address=f"{NET}.1.2")
    error = host.handle.attach(host.targets(4)).failure()
    assert error.code == "IDENTITY"
    assert not host.passed("dm.create")
    assert host.clean


def test_majority_is_not_enough(host: FakeHost) -> None:
    host.export()
    host.export(address=f"{NET}.1.1")
    error = host.handle.attach(host.targets(3), min_paths=3).failure()
    assert error.code == "IDENTITY"
    assert host.clean


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT])
def test_inquiry_fails(host: FakeHost, number: int) -> None:
    host.export()
    host.fail("inquiry", number, "sda", times=None)
    made = host.handle.attach(host.targets(2)).finish()
    assert sorted(path.state for path in made.paths) == ["ACTIVE", "FAILED"]
    assert until(lambda: len(host.sessions) == 1)  # the failed path is undone in the background


def test_left_over_disk(host: FakeHost) -> None:
    """The LUN was used before: the number that the disk itself tells counts."""
    host.export()
    session = host.add_session(host.targets()[0])
    host.add_disk(session, 1)
    host.swap(new := new_volume())
    made = host.handle.attach(host.targets()).finish()
    assert made.wwid == new.wwid


def test_disk_of_before_without_event(host: FakeHost) -> None:
    volume = host.export()
    targets = host.targets(2)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    made = host.handle.attach(targets).finish()
    assert made.wwid == volume.wwid
    assert not host.passed("scan")
    assert host.logins == 0


def test_name_is_taken_by_another(host: FakeHost) -> None:
    """The node is not the device that appeared."""
    host.export()
    real = FakeHost.identity_check
    calls = []

    def check(path: object, dev: int) -> int:
        calls.append(dev)
        return real(host, path, dev + 1)

    host.identity_check = check  # type: ignore[method-assign]
    error = host.handle.attach(host.targets()).failure()
    assert error.code == "DEVICE"
    assert calls
    assert not host.passed("inquiry")


# --- the map --------------------------------------------------------------------------------------


def test_no_multipath_target(host: FakeHost) -> None:
    host.dm.targets.clear()
    error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.phase) == ("NO_MULTIPATH", "prepare")
    assert not host.iscsid.requests


def test_no_device_mapper(host: FakeHost) -> None:
    (host.dev / "mapper" / "control").unlink()
    error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.errno) == ("NO_MULTIPATH", errno.ENOENT)
    assert not host.iscsid.requests


def test_not_allowed(host: FakeHost) -> None:
    host.fail("dm.version", errno.EACCES)
    assert host.handle.attach(host.targets(2)).failure().code == "PERMISSION"
    host.export()
    assert host.handle.attach(host.targets(2)).finish().path_count == 2


def test_claimed_path(host: FakeHost) -> None:
    """A file system on one path, for ever."""
    host.export()
    targets = host.targets(2)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    host.disks["sda"].claimed = True
    with at_most(3.0):
        error = host.handle.attach(targets, timeout=2.0).failure()
    assert (error.code, error.errno) == ("IN_USE", errno.EBUSY)
    assert "sda" in error.message
    assert not host.dm.maps
    assert len(host.sessions) == 2


def test_busy_for_a_while(host: FakeHost) -> None:
    """udev and LVM look at new disks."""
    host.export()
    host.fail("dm.load", errno.EBUSY, times=4)
    assert host.handle.attach(host.targets(2)).finish().path_count == 2
    assert len(host.passed("dm.load")) == 5


def test_read_only_lun(host: FakeHost) -> None:
    host.export()
    host.fail("dm.load", errno.EROFS, times=1)
    assert host.handle.attach(host.targets(2)).finish().path_count == 2


@pytest.mark.parametrize("point", ["dm.create", "dm.load", "dm.resume"])
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EINVAL])
def test_map_fails(host: FakeHost, point: str, number: int) -> None:
    host.export()
    host.fail(point, number, times=None)
    error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.phase, error.errno) == ("MAP", "map", number)
    assert host.clean


def devs(host: FakeHost) -> list[tuple[int, int]]:
    return [disk.dev for disk in host.disks.values()]


def test_somebody_was_quicker(host: FakeHost) -> None:
    """multipathd made the map between our look and our CREATE."""
    volume = host.export()
    host.call("dm.create", lambda: host.dm.make(volume.uuid, devs(host), SECTORS))
    made = host.handle.attach(host.targets(2)).finish()
    assert made.map_was_there
    assert list(host.dm.maps) == [volume.uuid]


def test_somebody_was_quicker_and_not_finished(host: FakeHost) -> None:
    """Between CREATE and RESUME of another creator: wait for it."""
    volume = host.export()

    def create() -> None:
        item = host.dm._create(volume.wwid, volume.uuid)

        def finish() -> None:
            with host.lock:
                from fake.dm import Table

                members = "".join(f" {a}:{b} 1" for a, b in devs(host))
                params = f"0 0 1 1 service-time 0 2 1{members}"
                host.dm._load(item, Table("multipath", params, SECTORS))
                host.dm._swap(item)

        threading.Timer(0.2, finish).start()

    host.call("dm.create", create)
    made = host.handle.attach(host.targets(2)).finish()
    assert made.map_was_there
    assert len(host.dm.maps) == 1


def test_empty_map_that_nobody_finishes(host: FakeHost) -> None:
    """Left by a crash: removed and made again."""
    volume = host.export()
    host.dm._create(volume.wwid, volume.uuid)
    made = host.handle.attach(host.targets(2)).finish()
    assert not made.map_was_there
    (item,) = host.dm.maps.values()
    assert len(item.members) == 2


def test_suspended_map(host: FakeHost) -> None:
    """Left by a crash in the middle of a reload: I/O would hang."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    (item,) = host.dm.maps.values()
    item.suspended = True
    made = host.handle.attach(host.targets(2)).finish()
    assert made.map_was_there
    assert not item.suspended


def test_map_vanishes_between(host: FakeHost) -> None:
    """Removed by somebody between CREATE and LOAD: made again."""
    volume = host.export()
    host.call("dm.load", lambda: host.dm._remove(host.dm.maps[volume.uuid]))
    made = host.handle.attach(host.targets(2)).finish()
    assert list(host.dm.maps) == [volume.uuid]
    assert made.path_count == 2


def test_name_belongs_to_another_map(host: FakeHost) -> None:
    volume = host.export()
    host.dm.make("LVM-x", [], 8, kind="linear", name=volume.wwid)
    made = host.handle.attach(host.targets(2)).finish()
    assert made.name == volume.uuid
    assert set(host.dm.maps) == {"LVM-x", volume.uuid}


def test_map_of_another_type(host: FakeHost) -> None:
    volume = host.export()
    host.dm.make(volume.uuid, [], 8, kind="linear")
    error = host.handle.attach(host.targets(2)).failure()
    assert error.code == "MAP"
    assert "linear" in error.message
    assert list(host.dm.maps) == [volume.uuid]
    assert not host.sessions


def foreign_disk(host: FakeHost, volume: Volume) -> Disk:
    """Another path, not in the request."""
    host.export(f"{IQN}-other", 7, volume)
    session = host.add_session(Target(f"{NET}.2.1", 3260, f"{IQN}-other", 7))
    return host.add_disk(session, 7)


def test_foreign_member_that_is_the_same_disk(host: FakeHost) -> None:
    volume = host.export()
    disk = foreign_disk(host, volume)
    item = host.dm.make(volume.uuid, [disk.dev], SECTORS)
    made = host.handle.attach(host.targets(2)).finish()
    assert made.map_was_there
    assert len(item.members) == 3


def test_foreign_member_that_is_another_disk(host: FakeHost) -> None:
    """A map with our uuid over somebody else's disk: never used."""
    volume = host.export()
    other = new_volume()
    disk = foreign_disk(host, other)
    item = host.dm.make(volume.uuid, [disk.dev], SECTORS)
    error = host.handle.attach(host.targets(2)).failure()
    assert error.code == "IDENTITY"
    assert other.wwid in error.message
    assert item.members == [disk.dev]
    assert len(host.sessions) == 1
    assert "dm.load" not in {point for point, _ in host.calls}


def test_member_that_is_gone(host: FakeHost) -> None:
    volume = host.export()
    disk = foreign_disk(host, volume)
    item = host.dm.make(volume.uuid, [disk.dev], SECTORS)
    with host.lock:
        host._vanish(disk)
    made = host.handle.attach(host.targets(2)).finish()
    assert made.device == item.device
    assert len(item.members) == 2
    assert disk.dev not in item.members


def test_wwids_cannot_be_written(host: FakeHost) -> None:
    host.export()
    (host.root / "multipath" / "wwids").mkdir()
    made = host.handle.attach(host.targets(2)).finish()
    assert any("wwids" in text for text in made.warnings)


# --- the request ----------------------------------------------------------------------------------

GOOD = Target(f"{NET}.1.1", 3260, IQN, 1)


@pytest.mark.parametrize(
    ("targets", "fields", "word"),
    [
        ([], {}, "targets"),
        ([GOOD._replace(address="host.example")], {}, "host.example"),
        ([GOOD._replace(address="")], {}, "address"),
        ([GOOD._replace(port=0)], {}, "port"),
        ([GOOD._replace(iqn="")], {}, "empty"),
        ([GOOD._replace(iqn="iqn.x/y")], {}, "character"),
        ([GOOD._replace(iqn="iqn." + "x" * 220)], {}, "longer"),
        ([GOOD._replace(iqn="x.y")], {}, "begin"),
        ([GOOD._replace(lun=1 << 63)], {}, "LUN"),
        ([GOOD], {"min_paths": 2}, "min_paths"),
        ([GOOD, GOOD], {"min_paths": 2}, "min_paths"),
        ([GOOD], {"timeout": 0.0}, "timeout"),
        ([GOOD], {"timeout": 1e6}, "timeout"),
        ([GOOD] * 1025, {}, "1025"),
    ],
)
def test_bad_requests(
    host: FakeHost, targets: list[Target], fields: dict[str, Any], word: str
) -> None:
    with pytest.raises(Failure, match=word) as caught:
        host.handle.attach(targets, **fields)
    assert caught.value.code == "INVALID"


def test_many_targets(host: FakeHost) -> None:
    """More paths than anybody has, each with a login."""
    host.export()
    targets = [Target(f"127.1.{i // 250}.{i % 250 + 1}", 3260, IQN, 1) for i in range(256)]
    begin = time.monotonic()
    made = host.handle.attach(host.serve(targets), timeout=60.0).finish()
    assert made.path_count == 256
    print(f"256 paths: {time.monotonic() - begin:.2f} s")
    host.handle.detach(targets, timeout=60.0).finish()
    assert host.clean


def test_inventory(host: FakeHost) -> None:
    volume = host.export()
    host.handle.attach(host.targets(2)).finish()
    found = host.handle.inventory()
    assert [item.address for item in found.sessions] == [f"{NET}.1.1", f"{NET}.1.2"]
    assert [item.map for item in found.disks] == ["dm-0"] * 2
    (item,) = found.maps
    assert (item.wwid, item.path_count, item.active_path_count) == (volume.wwid, 2, 2)
    assert found.maps_known


def test_a_member_that_does_not_answer(host: FakeHost) -> None:
    """A path of the map is down: the map is right all the same, and the caller is told."""
    host.export()
    first = host.handle.attach(host.targets(3)).finish()
    host.fail("inquiry", errno.EIO, "sda", times=None)
    second = host.handle.attach(host.targets(3)).finish()
    assert second.device == first.device
    states = {path.device: path.state for path in second.paths}
    assert states == {"sda": "FAILED", "sdb": "ACTIVE", "sdc": "ACTIVE"}
    assert any("sda is in the map and does not answer" in text for text in second.warnings)
    assert len(host.sessions) == 3
