# SPDX-License-Identifier: Apache-2.0
"""Logins: side by side, shared, refused, silent, and taken back."""

from __future__ import annotations

import socket
import time

import pytest

from fake.host import IQN, NET, FakeHost, at_most, until
from fake.iscsid import LOGIN, LOGOUT, Action, Answer, Default, Handler, Request
from fake.library import PATIENCE, Target

STRAGGLER_GRACE = 2.0  # attach_volume.c


def silent(*addresses: str, ports: tuple[int, ...] = ()) -> Handler:
    """iscsid gets no answer from these portals."""

    def choose(request: Request) -> Action:
        assert request.fields is not None
        dead = request.fields["address"] in addresses or request.fields["port"] in ports
        return Answer(delay=60.0) if dead else Default()

    return choose


def answered(*addresses: str, error: int) -> Handler:
    """Logins through these portals fail."""

    def choose(request: Request) -> Action:
        assert request.fields is not None
        return Answer(error) if request.fields["address"] in addresses else Default()

    return choose


# --- in flight ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 4, 8, 16])
def test_all_together(host: FakeHost, count: int) -> None:
    host.export()
    host.iscsid.login_delay = 0.3
    with at_most(1.2):
        made = host.handle.attach(host.targets(count)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE"] * count
    assert host.iscsid.max_in_flight == count
    logins = host.iscsid.of(LOGIN)
    finished = [request.finished for request in logins if request.finished is not None]
    assert max(request.accepted for request in logins) < min(finished)


def test_sixteen_at_most(host: FakeHost) -> None:
    host.export()
    host.iscsid.login_delay = 0.3
    made = host.handle.attach(host.targets(40)).finish()
    assert len(made.paths) == 40
    assert all(path.state == "ACTIVE" for path in made.paths)
    assert host.iscsid.max_in_flight == 16


def test_fewer_on_request(host: FakeHost) -> None:
    host.export()
    host.iscsid.login_delay = 0.05
    host.open(logins_in_flight=3).attach(host.targets(8)).finish()
    assert host.iscsid.max_in_flight == 3


def test_first_volume_does_not_wait_for_the_last(host: FakeHost) -> None:
    """Pipelined by volume: 8 volumes on targets of their own, 32 logins, 16 at a time.

    In the order of submission once the handle is warm: its very first operations each ask for the
    multipath target in a worker, and go on in whatever order these answer.
    """
    host.handle.attach(host.targets(1)).failure()
    host.iscsid.login_delay = 0.3
    operations = []
    for number in range(8):
        host.export(f"{IQN}{number}")
        operations.append(host.handle.attach(host.targets(4, iqn=f"{IQN}{number}")))
    made = [operation.finish() for operation in operations]
    assert made[0].times.login_ns + 200_000_000 < made[-1].times.login_ns


# --- shared ---------------------------------------------------------------------------------------


def test_two_volumes_share_logins(host: FakeHost) -> None:
    host.iscsid.login_delay = 0.2
    volumes = [host.export(lun=lun) for lun in (1, 2)]
    operations = [host.handle.attach(host.targets(2, lun=lun)) for lun in (1, 2)]
    made = [operation.finish() for operation in operations]
    assert [item.wwid for item in made] == [volume.wwid for volume in volumes]
    assert host.logins == 2
    host.handle.detach(host.targets(2, lun=1)).finish()
    assert len(host.sessions) == 2
    assert not host.iscsid.of(LOGOUT)
    host.handle.detach(host.targets(2, lun=2)).finish()
    assert host.clean


def test_shared_login_fails_for_both(host: FakeHost) -> None:
    host.iscsid.login_delay = 0.1
    host.iscsid.handlers[LOGIN] = lambda _: Answer(24, delay=0.1)
    operations = [host.handle.attach(host.targets(1, lun=lun)) for lun in (1, 2, 3)]
    assert [operation.failure().code for operation in operations] == ["AUTH"] * 3
    assert host.logins == 1


def test_two_luns_in_one_request(host: FakeHost) -> None:
    """The same portal twice: one session."""
    volume = host.export(lun=1)
    host.export(lun=2, volume=volume)
    made = host.handle.attach([*host.targets(1, lun=1), *host.targets(1, lun=2)]).finish()
    assert len(made.paths) == 2
    assert host.logins == 1


def test_one_of_two_is_cancelled(host: FakeHost) -> None:
    """Whoever still wants the session keeps it."""
    host.iscsid.login_delay = 0.3
    volume = host.export(lun=1)
    host.export(lun=2)
    keep, cancel = (host.handle.attach(host.targets(2, lun=lun)) for lun in (1, 2))
    assert until(lambda: host.logins == 2)
    cancel.cancel()
    assert cancel.failure().code == "CANCELLED"
    assert keep.finish().wwid == volume.wwid
    assert host.logins == 2
    assert not host.iscsid.of(LOGOUT)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (1, "LOGIN"),
        (4, "REFUSED"),
        (5, "LOGIN"),
        (8, "NO_ANSWER"),
        (9, "LOGIN"),
        (11, "NO_ANSWER"),
        (12, "LOGIN"),
        (19, "LOGIN_REJECTED"),
        (24, "AUTH"),
        (99, "LOGIN"),
        (-1, "LOGIN"),
    ],
)
def test_error_codes(host: FakeHost, error: int, code: str) -> None:
    host.export()
    host.iscsid.handlers[LOGIN] = lambda _: Answer(error)
    found = host.handle.attach(host.targets(2)).failure()
    assert (found.code, found.phase, found.iscsid_code) == (code, "login", error)
    assert (found.address, found.port) == (f"{NET}.1.1", 3260)
    assert [path.error.iscsid_code for path in found.paths] == [error] * 2
    assert [path.state for path in found.paths] == ["FAILED"] * 2
    assert host.logins == 2


def test_one_portal_fails(host: FakeHost) -> None:
    host.export()
    host.iscsid.handlers[LOGIN] = answered(f"{NET}.1.2", error=19)
    with at_most(1.0):
        made = host.handle.attach(host.targets(4)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "ACTIVE", "ACTIVE"]
    assert made.paths[1].error.code == "LOGIN_REJECTED"
    assert made.paths[1].error.iscsid_code == 19


def test_exists_and_comes_up(host: FakeHost) -> None:
    """Somebody else is logging in: wait for that session."""
    volume = host.export()
    (target,) = host.targets()
    host.iscsid.script(LOGIN, Answer(15))
    operation = host.handle.attach([target])
    assert not operation.wait(0.3)
    host.add_session(target)
    made = operation.finish()
    assert made.wwid == volume.wwid
    assert made.paths[0].session_was_there
    assert host.logins == 1


def test_exists_and_comes_to_nothing(host: FakeHost) -> None:
    """iscsid is at a login for a process that was killed, and gives it up: it is asked again."""
    volume = host.export()
    (target,) = host.targets()
    host.iscsid.script(LOGIN, Answer(15), Answer(15))
    made = host.handle.attach([target]).finish()
    assert made.wwid == volume.wwid
    assert not made.paths[0].session_was_there
    assert host.logins == 3


def test_exists_but_is_not_logged_in_yet(host: FakeHost) -> None:
    volume = host.export()
    (target,) = host.targets()
    session = host.add_session(target)
    host.set_state(session, "FREE")
    operation = host.handle.attach([target])
    assert not operation.wait(0.3)
    host.set_state(session, "LOGGED_IN")
    assert operation.finish().wwid == volume.wwid
    assert host.logins == 0


def test_exists_but_never_comes_back(host: FakeHost) -> None:
    host.export()
    (target,) = host.targets()
    session = host.add_session(target)
    host.set_state(session, "FAILED")
    with at_most(2.0):
        error = host.handle.attach([target], timeout=1.0).failure()
    assert error.code == "TIMEOUT"
    assert "not logged in" in error.message
    assert session.sid in host.sessions, "it is not ours to log out"


def test_failed_session_beside_good_ones(host: FakeHost) -> None:
    """A session that iscsid is trying to bring back does not hold the volume up."""
    host.export()
    targets = host.targets(3)
    host.set_state(host.add_session(targets[0]), "FAILED")
    with at_most(STRAGGLER_GRACE + 1.0):
        made = host.handle.attach(targets).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE", "ACTIVE"]


# --- late and silent ------------------------------------------------------------------------------


def test_late_success_is_logged_out_again(host: FakeHost) -> None:
    host.export()
    host.iscsid.login_delay = 1.5
    targets = host.listen(3)
    with at_most(1.6):
        error = host.handle.attach(targets, timeout=0.5).failure()
    assert error.code == "TIMEOUT"
    assert not host.sessions
    assert until(lambda: len(host.iscsid.of(LOGOUT)) == 3)
    assert until(lambda: host.clean)


def test_unsent_logins_are_never_sent(host: FakeHost) -> None:
    host.export()
    host.iscsid.login_delay = 1.0
    operation = host.open(logins_in_flight=2).attach(host.listen(6), timeout=0.5)
    assert operation.failure().code == "TIMEOUT"
    assert until(lambda: len(host.iscsid.of(LOGOUT)) == 2)
    assert until(lambda: host.clean)
    assert host.logins == 2


def test_late_success_serves_the_next_attach(host: FakeHost) -> None:
    """The second attach comes before the orphan is there, and takes it."""
    volume = host.export()
    host.iscsid.login_delay = 1.0
    targets = host.listen(2)
    assert host.handle.attach(targets, timeout=0.5).failure().code == "TIMEOUT"
    assert host.handle.attach(targets).finish().wwid == volume.wwid
    assert host.logins == 2
    assert not host.iscsid.of(LOGOUT)


def closed_port() -> int:
    with socket.socket() as item:
        item.bind(("127.0.0.1", 0))
        port: int = item.getsockname()[1]
        return port


def test_refusing_portal(host: FakeHost) -> None:
    """iscsid would tell after its login timeout; we ask the portal ourselves."""
    host.export()
    refusing = Target("127.0.0.1", closed_port(), IQN, 1)
    host.iscsid.handlers[LOGIN] = silent(ports=(refusing.port,))
    with at_most(1.8):
        made = host.handle.attach([*host.targets(2), refusing]).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE", "PENDING"]
    assert made.paths[2].error.code == "REFUSED"


def test_only_refusing_portals(host: FakeHost) -> None:
    host.export()
    refusing = [Target("127.0.0.1", closed_port(), IQN, 1) for _ in range(2)]
    host.iscsid.handlers[LOGIN] = silent("127.0.0.1")
    with at_most(1.8):
        error = host.handle.attach(refusing).failure()
    assert error.code == "REFUSED"


def test_slow_portal_is_asked_once(host: FakeHost) -> None:
    """It accepts TCP connections: further ones would only fill its log."""
    host.export()
    host.iscsid.login_delay = 1.8
    (target,) = host.listen()
    host.handle.attach([target]).finish()
    (listener,) = host._listeners
    listener.setblocking(False)
    accepted = 0
    try:
        while True:
            listener.accept()[0].close()
            accepted += 1
    except BlockingIOError:
        pass
    assert accepted <= 1


def test_silent_portal(host: FakeHost) -> None:
    """The others suffice: after the grace the path is left out, and reported."""
    host.export()
    (dead,) = host.listen()
    host.iscsid.handlers[LOGIN] = silent(ports=(dead.port,))
    begin = time.monotonic()
    made = host.handle.attach([dead, *host.targets(3)]).finish()
    assert STRAGGLER_GRACE <= time.monotonic() - begin <= STRAGGLER_GRACE + 0.8 * PATIENCE
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE", "ACTIVE", "ACTIVE"]
    assert made.paths[0].error.code == "NO_ANSWER"
    assert any("127.0.0.1" in text for text in made.warnings)
    assert len(made.warnings) == 2  # and multipathd does not run


def test_silent_portal_at_the_timeout(host: FakeHost) -> None:
    """min_paths are usable when the time is over: success, not a timeout."""
    host.export()
    (dead,) = host.listen()
    host.iscsid.handlers[LOGIN] = silent(ports=(dead.port,))
    made = host.handle.attach([dead, *host.targets(1)], timeout=1.0).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]


def test_silent_portal_with_too_few_others(host: FakeHost) -> None:
    host.export()
    (dead,) = host.listen()
    host.iscsid.handlers[LOGIN] = silent(ports=(dead.port,))
    operation = host.handle.attach([dead, *host.targets(2)], timeout=2.5, min_paths=3)
    with at_most(3.5):
        error = operation.failure()
    assert error.code == "TIMEOUT"
    assert "2 usable, 3 wanted" in error.message
    assert [path.state for path in error.paths].count("FAILED") >= 2
    assert until(lambda: not host.sessions and not host.disks and not host.dm.maps)


def test_all_silent(host: FakeHost) -> None:
    host.export()
    host.iscsid.handlers[LOGIN] = lambda _: Answer(delay=60.0)
    with at_most(2.0):
        error = host.handle.attach(host.listen(2), timeout=1.0).failure()
    assert error.code == "TIMEOUT"
    assert [path.error.code for path in error.paths] == ["NO_ANSWER"] * 2
    assert host.clean


def test_too_few_paths(host: FakeHost) -> None:
    """Known as soon as enough have failed; everything is undone."""
    host.export()
    host.iscsid.handlers[LOGIN] = answered(f"{NET}.1.2", f"{NET}.1.3", error=24)
    with at_most(1.5):
        error = host.handle.attach(host.targets(4), min_paths=3).failure()
    assert error.code == "AUTH"
    assert "2 of 4 paths failed" in error.message
    assert until(lambda: host.clean and len(host.iscsid.of(LOGOUT)) == 2)


def test_recovery_timeout(host: FakeHost) -> None:
    """Of a session that we made: iscsid, started again, would set its own default."""
    before = host.add_session(host.targets(2)[1])
    host.export()
    host.handle.attach(host.targets(2)).finish()
    times = {
        session.sid: (folder / "recovery_tmo").read_text().strip()
        for session in host.sessions.values()
        for folder in (session.folder / "iscsi_session").iterdir()
    }
    assert times.pop(before.sid) == "120"
    assert list(times.values()) == ["5"]


def test_failure_waits_for_a_login_that_goes_on(host: FakeHost) -> None:
    """A command that ends then leaves no session behind."""
    host.export()
    targets = host.targets(2)
    host.iscsid.login_delay = lambda request: (
        0.4 if request.fields is not None and request.fields["address"] == f"{NET}.1.2" else 0.0
    )
    host.iscsid.handlers[LOGIN] = answered(f"{NET}.1.1", error=19)
    assert host.handle.attach(targets, min_paths=2).failure().code == "LOGIN_REJECTED"
    assert host.clean
    assert len(host.iscsid.of(LOGOUT)) == 1


def test_failure_does_not_wait_for_a_silent_portal(host: FakeHost) -> None:
    host.export()
    (silent,) = host.listen()
    host.iscsid.login_delay = lambda request: (
        9.0 if request.fields is not None and request.fields["port"] == silent.port else 0.0
    )
    host.iscsid.handlers[LOGIN] = answered(f"{NET}.1.1", error=19)
    with at_most(2.6):
        found = host.handle.attach([silent, *host.targets(1)], min_paths=2, timeout=8.0).failure()
    assert found.code == "LOGIN_REJECTED"
