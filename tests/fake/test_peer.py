# SPDX-License-Identifier: Apache-2.0
"""What stands behind iscsid's socket: nobody, somebody else, or a daemon with bad manners."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fake.host import FakeHost, at_most, until
from fake.iscsid import (
    INAME,
    LOGIN,
    LOGOUT,
    Action,
    Answer,
    Crash,
    Deny,
    Drop,
    Garbage,
    Mute,
    Reset,
    Session,
    Truncate,
    Wedge,
)
from fake.library import Library


def test_owner(host: FakeHost) -> None:
    host.export()
    handle = host.open(daemon_uid=os.geteuid() + 1)
    error = handle.attach(host.targets(2)).failure()
    assert error.code == "ISCSID_UNTRUSTED"
    assert host.name in error.message
    assert all(request.size == 0 for request in host.iscsid.requests)


def test_peer_changes_its_owner(host: FakeHost) -> None:
    """The owner is looked at for every connection, not once per process."""
    host.export()
    handle = host.open(daemon_uid=os.geteuid() + 1)
    for _ in range(3):
        assert handle.attach(host.targets()).failure().code == "ISCSID_UNTRUSTED"
    assert all(request.size == 0 for request in host.iscsid.requests)


def test_not_root(library: Library, tmp_path: Path) -> None:
    with FakeHost(library, tmp_path, allowed_uid=os.geteuid() + 1) as host:
        host.export()
        error = host.handle.attach(host.targets(2)).failure()
        assert (error.code, error.iscsid_code) == ("PERMISSION", 13)


@pytest.mark.parametrize("command", [LOGIN, INAME])
def test_denied(host: FakeHost, command: int) -> None:
    host.export()
    host.iscsid.script(command, *[Deny()] * 20)
    error = host.handle.attach(host.targets(1)).failure()
    assert (error.code, error.iscsid_code) == ("PERMISSION", 13)


def test_nobody(host: FakeHost) -> None:
    host.export()
    host.iscsid.stop()
    with at_most(0.5):
        error = host.handle.attach(host.targets(2)).failure()
    assert error.code == "ISCSID_DOWN"
    assert host.name in error.message


def test_comes_later(host: FakeHost) -> None:
    """Down is not remembered."""
    volume = host.export()
    host.iscsid.stop()
    assert host.handle.attach(host.targets(2)).failure().code == "ISCSID_DOWN"
    host.iscsid.start()
    assert host.handle.attach(host.targets(2)).finish().wwid == volume.wwid


BROKEN = [
    pytest.param(Reset(), "ISCSID_PROTOCOL", id="reset"),
    pytest.param(Drop(), "ISCSID_PROTOCOL", id="dropped"),
    pytest.param(Truncate(100), "ISCSID_PROTOCOL", id="truncated"),
    pytest.param(Truncate(2463), "ISCSID_PROTOCOL", id="one byte short"),
    pytest.param(Garbage(), "ISCSID_PROTOCOL", id="garbage"),
    pytest.param(Answer(command=LOGOUT), "ISCSID_PROTOCOL", id="answer to another"),
]


@pytest.mark.parametrize(("action", "code"), BROKEN)
def test_login_always_broken(host: FakeHost, action: Action, code: str) -> None:
    host.export()
    host.iscsid.handlers[LOGIN] = lambda _: action
    if isinstance(action, Reset | Drop):
        host.iscsid.script(LOGIN, *[action] * 10)
    with at_most(3.0):
        error = host.handle.attach(host.targets(2), timeout=2.0).failure()
    assert error.code == code
    assert len(host.iscsid.of(LOGIN)) <= 4  # each at most twice


@pytest.mark.parametrize(("action", "code"), BROKEN[:4])
def test_login_broken_once(host: FakeHost, action: Action, code: str) -> None:
    """That is a restart: asked once more."""
    volume = host.export()
    host.iscsid.script(LOGIN, action)
    made = host.handle.attach(host.targets(2)).finish()
    assert made.wwid == volume.wwid
    assert [path.state for path in made.paths] == ["ACTIVE"] * 2


@pytest.mark.parametrize(
    "action", [Garbage(), Truncate(10), Answer(command=LOGIN), Answer(command=0, error=16)]
)
def test_probe_answered_with_nonsense(host: FakeHost, action: Action) -> None:
    host.export()
    host.iscsid.handlers[INAME] = lambda _: action
    with at_most(3.0):
        error = host.handle.attach(host.targets(2), timeout=2.0).failure()
    assert error.code == "ISCSID_PROTOCOL"
    assert not host.iscsid.of(LOGIN)


@pytest.mark.parametrize("action", [Reset(), Drop()])
def test_probe_never_answered_right(host: FakeHost, action: Action) -> None:
    """Looks as if every size were too small."""
    host.export()
    host.iscsid.script(INAME, *[action] * 30)
    with at_most(3.0):
        error = host.handle.attach(host.targets(2), timeout=2.0).failure()
    assert error.code in ("ISCSID_LAYOUT", "ISCSID_PROTOCOL")
    assert not host.iscsid.of(LOGIN)


@pytest.mark.parametrize("command", [INAME, LOGIN])
def test_crash_while_answering(host: FakeHost, command: int) -> None:
    """Half an answer, then nobody listens any more."""
    host.export()
    host.iscsid.handlers[command] = lambda _: Crash()
    with at_most(4.0):
        error = host.handle.attach(host.listen(2), timeout=3.0).failure()
    assert error.code in ("ISCSID_DOWN", "ISCSID_PROTOCOL")


def test_crash_and_restart(host: FakeHost) -> None:
    volume = host.export()
    host.iscsid.script(LOGIN, Crash())
    operation = host.handle.attach(host.targets(2))
    assert until(lambda: host.iscsid.crashed)
    host.iscsid.sessions.clear()
    host.iscsid.restart()
    assert operation.finish().wwid == volume.wwid


@pytest.mark.parametrize("command", [INAME, LOGIN])
def test_hang(host: FakeHost, command: int) -> None:
    """Typed error within the timeout and a second; the next attempt starts afresh."""
    volume = host.export()
    host.iscsid.handlers[command] = lambda _: Answer(delay=60.0)
    with at_most(2.0):
        error = host.handle.attach(host.listen(1), timeout=1.0).failure()
    assert error.code == "TIMEOUT"
    assert "iscsid" in error.message or "portal" in error.message
    host.iscsid.handlers.clear()
    made = host.handle.attach(host.listen(1), timeout=5.0).finish()
    assert made.wwid == volume.wwid


def test_wedged_for_a_while(host: FakeHost) -> None:
    """The daemon does nothing for a second, then goes on."""
    volume = host.export()
    host.iscsid.script(LOGIN, Wedge(1.0))
    made = host.handle.attach(host.listen(4), timeout=8.0).finish()
    assert made.wwid == volume.wwid
    assert len(made.paths) == 4


def test_started_by_the_first_connection(library: Library, tmp_path: Path) -> None:
    """iscsid.socket listens, iscsid comes up seconds later."""
    with FakeHost(library, tmp_path, start_delay=1.5) as host:
        volume = host.export()
        made = host.handle.attach(host.targets(2), timeout=5.0).finish()
        assert made.wwid == volume.wwid


@contextmanager
def full_backlog(host: FakeHost) -> Iterator[None]:
    """Connections that nobody accepts yet: connect() says EAGAIN."""
    made = []
    try:
        while True:
            item = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            made.append(item)
            try:
                item.connect(b"\0" + host.name.encode())
            except BlockingIOError:
                break
        yield
    finally:
        for item in made:
            item.close()


def test_full_backlog(library: Library, tmp_path: Path) -> None:
    with FakeHost(library, tmp_path, start_delay=1.0, backlog=4) as host:
        volume = host.export()
        with full_backlog(host):
            operation = host.handle.attach(host.targets(4), timeout=5.0)
            assert not operation.wait(0.3)
        assert operation.finish().wwid == volume.wwid


def test_full_backlog_for_ever(library: Library, tmp_path: Path) -> None:
    with FakeHost(library, tmp_path, start_delay=30.0, backlog=4) as host:
        host.export()
        with full_backlog(host):
            before = time.process_time()
            with at_most(2.0):
                error = host.handle.attach(host.targets(4), timeout=1.0).failure()
            assert error.code == "TIMEOUT"
            assert time.process_time() - before < 0.5, "waiting must not spin"


def test_logins_are_never_answered(host: FakeHost) -> None:
    """2.1.10 with a manual scan: the session is up, the answer never comes."""
    volume = host.export()
    host.iscsid.handlers[LOGIN] = lambda _: Mute()
    with at_most(1.0):
        made = host.handle.attach(host.targets(4)).finish()
    assert made.wwid == volume.wwid
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4
    host.iscsid.handlers.clear()
    host.handle.detach(host.targets(4)).finish()
    assert host.clean


def test_login_answered_before_sysfs_shows_it(host: FakeHost) -> None:
    volume = host.export()
    shown = threading.Event()

    def later(session: Session) -> None:
        def show() -> None:
            host._on_login(session)
            shown.set()

        threading.Timer(0.1, show).start()

    host.iscsid.on_login = later
    assert host.handle.attach(host.targets(1)).finish().wwid == volume.wwid
    assert shown.is_set()
