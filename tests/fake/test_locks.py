# SPDX-License-Identifier: Apache-2.0
"""Other processes: a second handle on the same lock files, or a child that has one locked."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake.host import IQN, NET, SIZE, FakeHost, at_most, new_volume, until
from fake.iscsid import LOGIN, LOGOUT, Answer, Default, Mute, Session
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


def keep_from_coming_up(host: FakeHost, text: str = "FAILED") -> None:
    """Sessions are made, and iscsid says so, but the kernel never has them logged in."""

    def made(item: Session) -> None:
        host._on_login(item)
        host.set_state(host.sessions[item.sid], text)

    host.iscsid.on_login = made


def test_late_path_whose_portal_goes_again_holds_no_lock(host: FakeHost) -> None:
    """It had come back, and goes while the LUN is scanned: it waits anew, without a lock."""
    volume = host.export()
    (other,) = host.targets(1)
    (late,) = host.listen()
    session = host.add_session(late)
    host.set_state(session, "FAILED")
    made = host.handle.attach([late, other]).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    gate = host.block("scan")
    host.set_state(session, "LOGGED_IN")
    assert gate.reached()
    assert (locks(host) / of_session(late)).exists()
    host.set_state(session, "FAILED")
    host._listeners.pop().close()
    gate.release()
    assert until(lambda: not list(locks(host).iterdir()), 2.0)
    # it goes on waiting
    host.serve([late])
    host.set_state(session, "LOGGED_IN")
    assert until(lambda: len(host.dm.maps[volume.uuid].members) == 2, 10.0)


def test_a_session_that_never_comes_up_is_not_locked_for_ever(host: FakeHost) -> None:
    host.export()
    targets = host.targets(2)
    host.handle.attach(targets[1:]).finish()
    keep_from_coming_up(host)
    host.export(lun=2)
    made = host.handle.attach([target._replace(lun=2) for target in targets]).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    assert (locks(host) / of_session(targets[0])).exists()
    assert until(lambda: not list(locks(host).iterdir()), 8.0)
    assert until(lambda: any("its lock is let go of" in line for line in host.handle.log))
    # and joins all the same when it comes up
    for session in host.sessions.values():
        host.set_state(session, "LOGGED_IN")
    assert until(lambda: len(host.disks) == 3)


def test_a_session_that_never_comes_up_is_undone(host: FakeHost) -> None:
    """Nobody wants it any more, and iscsid would try for ever."""
    host.export()
    keep_from_coming_up(host)
    error = host.handle.attach(host.targets(1), timeout=1.0).failure()
    assert error.code == "TIMEOUT"
    assert len(host.sessions) == 1
    assert until(lambda: not host.sessions, 8.0)
    assert until(lambda: list(locks(host).iterdir()) == [])


def test_a_login_without_an_answer_is_not_locked_for_ever(host: FakeHost) -> None:
    """iscsid 2.1.10 gives none, and this session loses its connection before it is logged in."""
    host.export()
    keep_from_coming_up(host)
    host.iscsid.handlers[LOGIN] = lambda _: Mute()
    error = host.handle.attach(host.targets(1), timeout=1.0).failure()
    assert error.code == "TIMEOUT"
    assert until(lambda: not host.sessions, 15.0)
    assert until(lambda: not list(locks(host).iterdir()))


def lose_session(host: FakeHost) -> None:
    """iscsid gave it up."""
    with host.iscsid._changed:
        (item,) = host.iscsid.sessions.values()
        host.iscsid.sessions.clear()
    host._on_logout(item)


@pytest.mark.parametrize("timeout", [1.0, 30.0])
def test_a_login_without_an_answer_whose_session_goes(host: FakeHost, timeout: float) -> None:
    """Nothing ends it but that the answer is due; who waits hears of it, and the next one tries."""
    host.export()
    keep_from_coming_up(host)
    host.iscsid.script(LOGIN, Mute())
    attach = host.handle.attach(host.targets(1), timeout=timeout)
    assert until(lambda: len(host.sessions) == 1)
    assert not attach.wait(0.5)  # it is seen
    lose_session(host)
    error = attach.failure()
    assert error.code == ("TIMEOUT" if timeout < 2.0 else "SESSION")
    assert until(lambda: not list(locks(host).iterdir()), 8.0)
    host.iscsid.on_login = host._on_login
    host.handle.attach(host.targets(1)).finish()


def test_disks_that_cannot_be_read_keep_the_session_and_are_told(host: FakeHost) -> None:
    host.export()
    (target,) = host.targets(1)
    host.handle.attach([target]).finish()
    (sid,) = host.sessions
    gate = host.block("delete")
    detach = host.handle.detach([target])
    assert gate.reached()
    with host.denied(f"session{sid}/device"):
        gate.release()
        result = detach.finish()
    assert (result.sessions_removed, result.sessions_kept) == (0, 1)
    (warning,) = result.warnings
    assert "stays logged in" in warning
    assert f"errno {errno.EMFILE}" in warning
    assert warning in host.handle.log
    assert host.handle.detach([target]).finish().sessions_removed == 1


def test_forced_detach_waits_for_no_session_while_a_deletion_hangs(
    host: FakeHost, hold: Hold
) -> None:
    """It has the volume's lock until that ends, which whoever has the session may wait for."""
    host.export()
    targets = host.targets(2)
    host.handle.attach(targets).finish()
    gate = host.block("delete")
    hold(of_session(targets[0]), "shared")
    hold(of_session(targets[1]), "shared")
    error = host.handle.detach(targets, timeout=6.0, force=True).failure()
    gate.release()
    assert error.phase == "delete"
    assert error.detachment.sessions_kept == 2
    assert error.detachment.times.logout_ns < 1e9


def test_the_last_who_logs_out_says_how_long_it_waits(host: FakeHost, hold: Hold) -> None:
    host.export()
    (target,) = host.targets(1)
    host.handle.attach([target]).finish()
    hold(of_session(target), "shared")
    first = host.handle.detach([target], timeout=60.0)
    assert until(lambda: not host.disks)
    assert not first.wait(0.2)
    first.cancel()
    assert first.failure().code == "CANCELLED"
    result = host.handle.detach([target], timeout=1.0).finish()
    assert result.sessions_kept == 1
    assert "stays logged in" in result.warnings[0]


def test_a_session_left_to_a_late_path_is_logged_out_with_it(host: FakeHost) -> None:
    """That waits for the portal, which is away: iscsid keeps a session that nobody needs."""
    host.export()
    host.export(lun=2)
    (here,) = host.targets(1)
    (gone,) = host.listen()
    host.handle.attach([gone, here]).finish()
    (session,) = (item for item in host.sessions.values() if item.port == gone.port)
    host.set_state(session, "FAILED")
    host._listeners.pop().close()
    late = [target._replace(lun=2) for target in (gone, here)]
    made = host.handle.attach(late).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    assert host.handle.detach([gone, here]).finish().sessions_kept == 2
    assert len(host.sessions) == 2
    host.handle.detach(late[1:]).finish()  # ends the waiting of the other one
    assert until(lambda: not host.sessions)
    told = [line for line in host.handle.log if "is not needed and is to be logged out" in line]
    assert told[0].startswith(f"session {session.sid} to ")


def test_each_session_waits_for_its_own_target_to_go(host: FakeHost) -> None:
    """The host has two to the node; the first one's target stays as long as is waited for."""
    host.export()
    (target,) = host.targets(1)
    sessions = [host.add_session(target) for _ in range(2)]
    for session in sessions:
        host.add_disk(session, 1)
        (session.folder / f"target{session.host}:0:0" / "busy").touch()
    logouts: list[float] = []
    real = host.iscsid.on_logout
    assert real is not None

    def logged_out(item: Session) -> object:
        logouts.append(time.monotonic())
        return real(item)

    host.iscsid.on_logout = logged_out
    host.handle.attach([target]).finish()
    assert host.handle.detach([target]).finish().sessions_removed == 1
    assert host.clean
    assert logouts[1] - logouts[0] > 0.9


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


@pytest.mark.parametrize(
    ("kind", "point"), [("attach", "dm.create"), ("extend", "rescan"), ("detach", "dm.remove")]
)
def test_lock_outlives_a_closed_handle(
    host: FakeHost, other: Handle, kind: str, point: str
) -> None:
    """The map's job is stuck in the kernel: nobody else begins before it is over."""
    host.export()
    targets = host.targets(2)
    if kind != "attach":
        other.attach(targets).finish()
    gate = host.block(point)
    one = getattr(host.handle, kind)(targets)
    assert gate.reached()
    host.handle.close()
    assert one.failure().code == "CANCELLED"
    two = other.attach(targets)
    assert not two.wait(0.4)
    gate.release()
    assert [path.state for path in two.finish().paths] == ["ACTIVE"] * 2
    assert until(lambda: list(locks(host).iterdir()) == [])


@pytest.mark.parametrize("of", ["old", "new"])
def test_left_over_disk_waits_for_the_lock(host: FakeHost, hold: Hold, of: str) -> None:
    """Of either volume. Meanwhile another process replaced the disk: theirs is not deleted."""
    old, new = host.export(), new_volume()
    (target,) = host.targets(1)
    session = host.add_session(target)
    disk = host.add_disk(session, 1)
    host.dm.make(old.uuid, [disk.dev], old.size // 512)
    host.swap(new)
    holder = hold(f"wwid-{(old if of == 'old' else new).wwid}")
    attach = host.handle.attach([target])
    assert until(lambda: host.passed("inquiry"))
    assert not attach.wait(0.3)
    with host.lock:
        host.dm._remove(host.dm.maps[old.uuid])
        host._vanish(disk)
    theirs = host.add_disk(session, 1)
    holder.kill()
    assert attach.finish().paths[0].device == theirs.name
    assert not host.passed("delete")


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


@pytest.mark.parametrize("single_path", [False, True])
def test_undo_leaves_a_disk_that_another_process_uses(host: FakeHost, single_path: bool) -> None:
    """Ours brought it, theirs attached it, then ours failed."""
    host.export()
    targets = host.targets(2)
    host.device_delay = lambda disk: None if disk.session.address == f"{NET}.1.2" else 0.0
    attach = host.handle.attach(targets, min_paths=2)
    assert until(lambda: len(host.disks) == 1)
    (disk,) = host.disks.values()
    other = host.open()
    other.attach(targets[:1], single_path=single_path).finish()
    attach.cancel()
    assert attach.failure().code == "CANCELLED"
    assert until(lambda: f"{NET}.1.2" not in [s.address for s in host.sessions.values()])
    assert list(host.disks) == [disk.name]
    assert disk.name not in host.passed("delete")
    assert [session.address for session in host.sessions.values()] == [f"{NET}.1.1"]
    assert len(host.dm.maps) == (0 if single_path else 1)
    other.detach(targets[:1]).finish()
    assert host.clean


def test_undo_leaves_a_disk_that_came_late_to_another_process(host: FakeHost) -> None:
    """When ours was undone it had no block device yet, so nobody could have it."""
    volume = host.export()
    host.export(lun=2)
    targets = host.targets(1)
    host.device_delay = lambda _: None
    handle = host.open(worker_threads=1)
    attach = handle.attach(targets)
    assert until(lambda: any(session.disks for session in host.sessions.values()))
    gate = host.block("scan")
    busy = handle.attach(host.targets(1, lun=2))  # its scan is before the deletion
    assert gate.reached()
    attach.cancel()
    (session,) = host.sessions.values()
    host.appear(session.disks[1])
    host.open().attach(targets).finish()
    gate.release()
    busy.cancel()
    assert attach.failure().code == "CANCELLED"
    assert busy.failure().code == "CANCELLED"
    assert len(host.dm.maps[volume.uuid].members) == len(session.disks) == 1
    assert len(host.sessions) == 1


@pytest.mark.parametrize("single_path", [False, True])
def test_undo_leaves_the_next_disk_at_the_address(host: FakeHost, single_path: bool) -> None:
    """Ours brought one, theirs deleted it and brought another."""
    host.export()
    targets = host.targets(2)
    host.device_delay = lambda disk: None if disk.session.address == f"{NET}.1.2" else 0.0
    attach = host.handle.attach(targets, min_paths=2)
    assert until(lambda: len(host.passed("size")) == 1)
    assert not attach.wait(0.2)
    other = host.open()
    other.attach(targets[:1], single_path=single_path).finish()
    other.detach(targets[:1], timeout=2.0).finish()
    made = other.attach(targets[:1], single_path=single_path).finish()
    (name,) = host.disks
    attach.cancel()
    assert attach.failure().code == "CANCELLED"
    assert until(lambda: f"{NET}.1.2" not in [s.address for s in host.sessions.values()])
    assert list(host.disks) == [name]
    assert name not in host.passed("delete")
    assert made.device == name if single_path else len(host.dm.maps) == 1


@pytest.mark.parametrize("single_path", [False, True])
def test_undo_of_an_unread_disk_locks_the_volume(host: FakeHost, single_path: bool) -> None:
    """Its deletion waits in the kernel; who has read the disk meanwhile must not use it."""
    host.export()
    targets = host.targets(1)
    host.device_delay = lambda disk: None if disk.name == "sda" else 0.0
    attach = host.handle.attach(targets)
    assert until(lambda: any(session.disks for session in host.sessions.values()))
    (session,) = host.sessions.values()
    host.appear(session.disks[1], event=False)
    gate = host.block("delete")
    attach.cancel()
    assert gate.reached()
    other = host.open().attach(targets, single_path=single_path)
    assert not other.wait(1.0)
    gate.release()
    assert attach.failure().code == "CANCELLED"
    assert [path.device for path in other.finish().paths] == ["sdb"]
    assert list(host.disks) == ["sdb"]


def test_undone_disks_do_not_wait_for_each_other(host: FakeHost) -> None:
    host.export()
    host.device_delay = lambda _: None
    attach = host.handle.attach(host.targets(2))
    assert until(lambda: sum(len(session.disks) for session in host.sessions.values()) == 2)
    for session in host.sessions.values():
        host.appear(session.disks[1], event=False)
    gate = host.block("delete", "sda")
    attach.cancel()
    assert gate.reached()
    assert until(lambda: list(host.disks) == ["sda"])
    gate.release()
    attach.failure()
    assert until(lambda: host.clean)


def test_undo_leaves_a_disk_that_a_new_map_claims(host: FakeHost) -> None:
    """It has no name in sysfs yet."""
    host.export()
    targets = host.targets(2)
    host.device_delay = lambda disk: None if disk.session.address == f"{NET}.1.2" else 0.0
    attach = host.handle.attach(targets, min_paths=2)
    assert until(lambda: len(host.passed("size")) == 1)
    assert not attach.wait(0.2)
    (disk,) = host.disks.values()
    (disk.folder / "block" / disk.name / "holders" / "dm-9").symlink_to("../../dm-9")
    disk.claimed = True
    attach.cancel()
    assert attach.failure().code == "CANCELLED"
    assert until(lambda: any(f"{disk.name} stays" in line for line in host.handle.log))
    assert disk.name not in host.passed("delete")


def test_hung_scan_of_a_late_path_keeps_no_lock(host: FakeHost) -> None:
    volume = host.export()
    late = host.listen(2)
    usable = host.targets(1)
    sessions = [host.add_session(target) for target in late]
    for session in sessions:
        host.set_state(session, "FAILED")
    made = host.handle.attach([*late, *usable], timeout=3.0).finish()
    assert [path.state for path in made.paths] == ["PENDING", "PENDING", "ACTIVE"]
    gate = host.block("scan", f"{sessions[0].host}:0:0:1")
    host.set_state(sessions[0], "LOGGED_IN")
    assert gate.reached(20.0)
    assert until(lambda: any("the kernel's scan" in line for line in host.handle.log))
    host.set_state(sessions[1], "LOGGED_IN")
    assert until(lambda: len(host.dm.maps[volume.uuid].members) == 2)
    host.open().attach(usable, timeout=5.0).finish()
    gate.release()


def test_ready_disk_that_cannot_be_looked_at(host: FakeHost, hold: Hold) -> None:
    """With the lock it is looked for once more; it is not gone for that."""
    volume = host.export()
    holder = hold(f"wwid-{volume.wwid}")
    attach = host.handle.attach(host.targets(2), min_paths=2)
    assert until(lambda: len(host.passed("size")) == 2)
    assert not attach.wait(0.3)
    session = next(iter(host.sessions.values()))
    with host.denied(f"target{session.host}:0:0/{session.host}:0:0:1"):
        holder.kill()
        made = attach.finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE"]


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


def test_scan_that_was_given_up_before_it_began(host: FakeHost) -> None:
    """It would bring a disk that nobody wants any more."""
    host.export(lun=1)
    host.export(lun=2)
    handle = host.open(worker_threads=1)
    made = handle.attach(host.targets(1)).finish()
    gate = host.block("fsync", made.device)
    hanging = handle.detach(host.targets(1))
    assert gate.reached()
    host.calls.clear()
    error = handle.attach(host.targets(1, lun=2), timeout=0.5).failure()
    assert error.code == "TIMEOUT"
    gate.release()
    hanging.finish()
    assert not host.passed("scan")
    assert until(lambda: host.clean)
