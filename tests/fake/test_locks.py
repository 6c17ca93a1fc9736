# SPDX-License-Identifier: Apache-2.0
"""Other processes: a second handle on the same lock files, or a child that has one locked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake.host import IQN, NET, SIZE, FakeHost, at_most, new_volume, until
from fake.iscsid import LOGIN, LOGOUT, Answer, Default
from fake.library import Handle, Target

HOLDER = """
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
kind = fcntl.F_RDLCK if sys.argv[2] == "shared" else fcntl.F_WRLCK
fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
os.write(fd, b"%010d\\n" % os.getpid())
print("locked", flush=True)
time.sleep(60)
"""

Hold = Callable[..., subprocess.Popen[str]]


def locks(host: FakeHost) -> Path:
    return host.root / "locks"


def of_session(target: Target) -> str:
    return f"session-{target.address}-{target.port}-{target.iqn}"


@pytest.fixture
def hold(host: FakeHost) -> Iterator[Hold]:
    """A process that has a lock until it dies."""
    made = []

    def begin(name: str, kind: str = "alone") -> subprocess.Popen[str]:
        locks(host).mkdir(mode=0o700, exist_ok=True)
        command = [sys.executable, "-c", HOLDER, str(locks(host) / name), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        made.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        return process

    yield begin
    for process in made:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture
def other(host: FakeHost) -> Handle:
    """Another process, as far as locks go."""
    assert host.handle
    return host.open()


# --- sessions -------------------------------------------------------------------------------------


def test_nothing_is_left_behind(host: FakeHost) -> None:
    host.export()
    targets = host.targets(2)
    host.handle.attach(targets).finish()
    assert until(lambda: list(locks(host).iterdir()) == [])
    assert locks(host).stat().st_mode & 0o777 == 0o700
    host.handle.detach(targets).finish()
    assert list(locks(host).iterdir()) == []


def test_two_attaches_make_one_session(host: FakeHost, other: Handle) -> None:
    """The second one waits for the first one's login, and no longer than that."""
    volume = host.export(lun=1)
    host.export(lun=2)
    host.iscsid.login_delay = 0.3
    gate = host.block("dm.create", volume.uuid)
    one = host.handle.attach(host.targets(2, lun=1))
    assert until(lambda: host.logins == 2)
    two = other.attach(host.targets(2, lun=2))
    assert gate.reached()
    assert [path.session_was_there for path in two.finish().paths] == [True, True]
    gate.release()
    one.finish()
    assert host.logins == len(host.sessions) == 2


def test_a_login_that_fails_is_tried_by_the_next(host: FakeHost, other: Handle) -> None:
    host.export(lun=1)
    host.export(lun=2)
    (target,) = host.targets(1)
    host.iscsid.login_delay = 0.3
    host.iscsid.on_login, real = lambda _: 24, host.iscsid.on_login
    one = host.handle.attach([target])
    assert until(lambda: host.logins == 1)
    two = other.attach([target._replace(lun=2)])
    assert one.failure().code == "AUTH"
    host.iscsid.on_login = real
    two.finish()
    assert host.logins == 2


def test_logout_waits_for_an_attach(host: FakeHost, other: Handle) -> None:
    """Which has found the session, and has no disk there yet."""
    host.export(lun=1)
    host.export(lun=2)
    one, two = host.targets(2, lun=1), host.targets(2, lun=2)
    host.handle.attach(one).finish()
    gates = [host.block("scan") for _ in two]
    attach = other.attach(two)
    assert all(gate.reached() for gate in gates)
    detach = host.handle.detach(one)
    assert not detach.wait(0.4)
    assert len(host.disks) == 0
    for gate in gates:
        gate.release()
    assert [path.state for path in attach.finish().paths] == ["ACTIVE"] * 2
    assert detach.finish().sessions_kept == 2
    assert not host.iscsid.of(LOGOUT)


def test_logout_does_not_wait_for_a_session_with_disks(host: FakeHost, other: Handle) -> None:
    host.export(lun=1)
    host.export(lun=2)
    one, two = host.targets(2, lun=1), host.targets(2, lun=2)
    host.handle.attach(one).finish()
    gate = host.block("dm.create")
    attach = other.attach(two)
    assert gate.reached()
    with at_most(1.0):
        assert host.handle.detach(one).finish().sessions_kept == 2
    gate.release()
    attach.finish()


def test_logout_does_not_wait_for_ever(host: FakeHost, hold: Hold) -> None:
    host.export()
    (target,) = host.targets(1)
    host.handle.attach([target]).finish()
    holder = hold(of_session(target), "shared")
    result = host.handle.detach([target], timeout=1.0).finish()
    assert (result.devices_removed, result.sessions_removed, result.sessions_kept) == (1, 0, 1)
    (warning,) = result.warnings
    assert "stays logged in" in warning
    assert str(locks(host) / of_session(target)) in warning
    assert f"process {holder.pid}" in warning
    assert not host.iscsid.of(LOGOUT)


def test_logout_waits_for_the_target_to_go(host: FakeHost) -> None:
    """Another process deleted the last disk, and the kernel is not through with its target yet."""
    host.export()
    targets = host.targets(1)
    host.handle.attach(targets).finish()
    (session,) = host.sessions.values()
    busy = session.folder / f"target{session.host}:0:0" / "busy"
    busy.touch()
    detach = host.handle.detach(targets)
    assert not detach.wait(0.2)
    assert not host.iscsid.of(LOGOUT)
    busy.unlink()
    busy.parent.rmdir()
    with at_most(0.5):
        assert detach.finish().sessions_removed == 1


def test_a_killed_holder_is_not_waited_for(host: FakeHost, hold: Hold) -> None:
    host.export()
    (target,) = host.targets(1)
    holder = hold(of_session(target))
    attach = host.handle.attach([target])
    assert not attach.wait(0.3)
    assert not host.logins
    holder.kill()
    attach.finish()


def test_a_path_whose_session_is_locked(host: FakeHost, hold: Hold) -> None:
    """Is one that is late: the volume does not wait for it, and it joins when it can."""
    volume = host.export()
    targets = host.targets(2)
    holder = hold(of_session(targets[0]))
    made = host.handle.attach(targets).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    assert f"process {holder.pid}" in made.paths[0].error.message
    holder.kill()
    assert until(lambda: len(host.dm.maps[volume.uuid].members) == 2)


def test_patience_holds_no_lock(host: FakeHost) -> None:
    """A portal that is away is asked now and then; meanwhile others may use it."""
    host.export()
    (dead,) = host.listen()
    host._listeners.pop().close()
    host.iscsid.handlers[LOGIN] = lambda request: (
        Answer(error=4)
        if request.fields is not None and request.fields["port"] == dead.port
        else Default()
    )
    made = host.handle.attach([dead, *host.targets(1)]).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    assert until(lambda: list(locks(host).iterdir()) == [])


def test_undoing_spares_a_session_that_another_process_uses(host: FakeHost, other: Handle) -> None:
    """Made by a login for nothing, and in use by now."""
    host.export(lun=2)
    (target,) = host.targets(1)
    gate = host.block("scan")
    one = host.handle.attach([target])
    assert gate.reached()
    other.attach([target._replace(lun=2)]).finish()
    gate.release()
    assert one.failure().code == "LUN_NOT_FOUND"
    assert len(host.sessions) == 1
    assert not host.iscsid.of(LOGOUT)


# --- maps -----------------------------------------------------------------------------------------


def test_map_waits_for_the_lock(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    holder = hold(f"wwid-{volume.wwid}")
    attach = host.handle.attach(host.targets(2))
    assert not attach.wait(0.5)
    assert not host.passed("dm.create")
    holder.kill()
    assert [path.state for path in attach.finish().paths] == ["ACTIVE"] * 2


def test_timeout_names_the_holder(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    holder = hold(f"wwid-{volume.wwid}")
    error = host.handle.attach(host.targets(2), timeout=1.0).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "map")
    assert str(locks(host) / f"wwid-{volume.wwid}") in error.message
    assert f"process {holder.pid}" in error.message
    assert len(host.disks) == 2  # whoever has the lock may be about to use them
    holder.kill()
    assert until(lambda: host.clean)


@pytest.mark.parametrize("single_path", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_disks_taken_away_while_it_waited(
    host: FakeHost, hold: Hold, count: int, single_path: bool
) -> None:
    """By a detach in another process: they are scanned for again."""
    volume = host.export()
    holder = hold(f"wwid-{volume.wwid}")
    attach = host.handle.attach(host.targets(2), single_path=single_path)
    wanted = 1 if single_path else 2
    assert until(lambda: len(host.passed("inquiry")) == wanted)
    assert not attach.wait(0.2)
    with host.lock:
        gone = list(host.disks.values())[:count]
        for disk in gone:
            host._vanish(disk)
    holder.kill()
    made = attach.finish()
    names = {path.device for path in made.paths if path.state == "ACTIVE"}
    assert len(names) == wanted
    assert names <= set(host.disks)
    assert not names & {disk.name for disk in gone}
    assert not any("taken away" in text or "scanned" in text for text in made.warnings)


def test_late_path_waits_for_the_lock(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    (slow,) = host.listen()
    host.iscsid.login_delay = lambda request: (
        3.0 if request.fields is not None and request.fields["port"] == slow.port else 0.0
    )
    made = host.handle.attach([slow, *host.targets(1)]).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    holder = hold(f"wwid-{volume.wwid}")
    assert until(lambda: len(host.disks) == 2)
    assert not until(lambda: len(host.dm.maps[volume.uuid].members) == 2, 0.1)
    holder.kill()
    assert until(lambda: len(host.dm.maps[volume.uuid].members) == 2)
    assert until(lambda: list(locks(host).iterdir()) == [])


def test_detach_ends_a_late_path_that_waits_for_the_lock(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    (slow,) = host.listen()
    host.iscsid.login_delay = lambda request: (
        3.0 if request.fields is not None and request.fields["port"] == slow.port else 0.0
    )
    targets = [slow, *host.targets(1)]
    host.handle.attach(targets).finish()
    holder = hold(f"wwid-{volume.wwid}")
    assert until(lambda: len(host.passed("inquiry")) == 2)
    detach = host.handle.detach(targets)
    detach.wait(0.3)
    holder.kill()
    detach.finish()
    assert host.clean


def test_extend_waits_for_the_lock(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    targets = host.targets(2)
    host.handle.attach(targets).finish()
    volume.size *= 2
    holder = hold(f"wwid-{volume.wwid}")
    error = host.handle.extend(targets, timeout=0.5).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "prepare")
    assert f"process {holder.pid}" in error.message
    assert not host.passed("rescan")
    extend = host.handle.extend(targets)
    assert not extend.wait(0.2)
    holder.kill()
    assert extend.finish().size_bytes == volume.size
    assert until(lambda: list(locks(host).iterdir()) == [])


def test_map_goes_while_extend_waits(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    targets = host.targets(2)
    host.handle.attach(targets).finish()
    holder = hold(f"wwid-{volume.wwid}")
    extend = host.handle.extend(targets)
    assert not extend.wait(0.2)
    with host.lock:
        host.dm._remove(host.dm.maps[volume.uuid])
    holder.kill()
    error = extend.failure()
    assert error.code == "MAP"
    assert "attach the volume again" in error.message


def test_extend_of_a_disk_without_a_map_waits_for_the_lock(host: FakeHost, hold: Hold) -> None:
    """Another process may be about to make a map of it; that is what is extended then."""
    volume = host.export()
    targets = host.targets(1)
    device = host.handle.attach(targets, single_path=True).finish().device
    volume.size *= 2
    holder = hold(f"wwid-{volume.wwid}")
    error = host.handle.extend(targets, timeout=0.5).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "prepare")
    assert not host.passed("rescan")
    extend = host.handle.extend(targets)
    assert not extend.wait(0.2)
    item = host.dm.make(volume.uuid, [host.disks[device].dev], SIZE // 512)
    holder.kill()
    made = extend.finish()
    assert (made.device, made.size_bytes) == (item.device, volume.size)
    assert until(lambda: list(locks(host).iterdir()) == [])


def test_disk_becomes_another_volume_while_extend_waits(host: FakeHost, hold: Hold) -> None:
    volume = host.export()
    targets = host.targets(1)
    device = host.handle.attach(targets, single_path=True).finish().device
    holder = hold(f"wwid-{volume.wwid}")
    extend = host.handle.extend(targets)
    assert not extend.wait(0.2)
    disk = host.disks[device]
    host.swap(new_volume())
    host._read_pages(disk)
    holder.kill()
    error = extend.failure()
    assert error.code == "DEVICE"
    assert "another volume just now" in error.message
    assert not host.passed("rescan")


# --- directories ----------------------------------------------------------------------------------


def test_no_directory_no_attach(host: FakeHost) -> None:
    """Running without locks would be worse than not running."""
    host.export()
    handle = host.open(runtime_dir=str(host.root / "missing" / "locks"))
    error = handle.attach(host.targets(1)).failure()
    assert error.code == "SYSTEM"
    assert str(host.root / "missing" / "locks") in error.message
    assert not host.logins


def test_directory_of_everybody(host: FakeHost) -> None:
    host.export()
    locks(host).mkdir()
    locks(host).chmod(0o777)
    error = host.handle.attach(host.targets(1)).failure()
    assert error.code == "SYSTEM"
    assert "only this user can write to" in error.message
    assert not host.logins


# --- within one process ---------------------------------------------------------------------------


def test_late_candidate_is_taken_back(host: FakeHost) -> None:
    """Its login is answered when the attach is over: nobody wants it any more."""
    host.export()
    (slow,) = host.listen(iqn=f"{IQN}-other")
    host.export(slow.iqn)
    host.iscsid.login_delay = lambda request: (
        3.0 if request.fields is not None and request.fields["port"] == slow.port else 0.0
    )
    made = host.handle.attach(host.targets(1), candidates=[slow]).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED"]
    assert until(lambda: len(host.iscsid.of(LOGIN)) == 2 and len(host.iscsid.of(LOGOUT)) == 1)
    assert until(lambda: len(host.sessions) == len(host.disks) == 1)


def test_candidate_that_comes_while_the_map_is_made(host: FakeHost) -> None:
    """Its disk goes, also from a session that stays."""
    host.export()
    (slow,) = host.listen(iqn=f"{IQN}-other")
    host.export(slow.iqn)
    session = host.add_session(slow)
    host.set_state(session, "FAILED")
    gate = host.block("dm.create")
    operation = host.handle.attach(host.targets(1), timeout=3.0, candidates=[slow])
    assert gate.reached()
    host.set_state(session, "LOGGED_IN")
    assert until(lambda: len(host.disks) == 2)
    gate.release()
    made = operation.finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED"]
    assert until(lambda: len(host.disks) == 1)
    assert len(host.sessions) == 2


def test_undo_leaves_a_disk_that_another_process_uses(host: FakeHost) -> None:
    """Ours brought it, theirs mapped it, then ours failed."""
    volume = host.export()
    targets = host.targets(2)
    host.device_delay = lambda disk: None if disk.session.address == f"{NET}.1.2" else 0.0
    attach = host.handle.attach(targets, min_paths=2)
    assert until(lambda: len(host.disks) == 1)
    host.open().attach(targets[:1]).finish()
    attach.cancel()
    assert attach.failure().code == "CANCELLED"
    assert len(host.dm.maps[volume.uuid].members) == 1
    assert "sda" not in host.passed("delete")
    assert f"{NET}.1.1" in [session.address for session in host.sessions.values()]


def test_job_that_was_given_up_before_it_began(host: FakeHost) -> None:
    """All threads hang: the deletion of a detach that timed out must not come later."""
    host.export()
    handle = host.open(worker_threads=1)
    made = handle.attach(host.targets(1)).finish()
    host.export(lun=2)
    stuck = handle.attach(host.targets(1, lun=2)).finish()
    gate = host.block("fsync", stuck.device)
    hanging = handle.detach(host.targets(1, lun=2))
    assert gate.reached()
    error = handle.detach(host.targets(1), timeout=0.5).failure()
    assert error.code == "TIMEOUT"
    gate.release()
    hanging.finish()
    assert host.passed("fsync").count(made.device) == 0
    assert len(host.dm.maps) == 1
