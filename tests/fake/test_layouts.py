# SPDX-License-Identifier: Apache-2.0
"""The request layout of the running iscsid: found, remembered, never guessed."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from fake.host import IQN, NET, FakeHost, at_most, until
from fake.iscsid import INAME, LAYOUTS, LOGIN, LOGOUT, Layout, Request
from fake.library import Library, Target

SIZES = sorted(Layout(path).request_size for path in LAYOUTS.glob("*.layout"))
UNKNOWN = 16120
PROBES_MAX = 5  # of 14 sizes


def write_layout(path: Path, size: int = UNKNOWN) -> None:
    """As L8, in a larger request."""
    text = (LAYOUTS / "L8-lp64-glibc.layout").read_text()
    path.write_text(text.replace("16136", str(size)).replace("L8-lp64-glibc", "mine"))


def wrong_logins(host: FakeHost) -> list[Request]:
    """Logins longer than iscsid expects: it acts on those."""
    return [r for r in host.iscsid.of(LOGIN) if r.extra]


@pytest.mark.parametrize("size", SIZES)
def test_known_size(library: Library, tmp_path: Path, size: int) -> None:
    with FakeHost(library, tmp_path, request_size=size) as host:
        volume = host.export()
        target = Target(f"{NET}.1.1", 3261, IQN, 1)
        assert host.handle.attach([target], timeout=16.0).finish().wwid == volume.wwid
        (login,) = host.iscsid.of(LOGIN)
        assert login.size == size
        assert login.fields is not None
        wanted = {
            "target_name": IQN,
            "address": f"{NET}.1.1",
            "port": 3261,
            "iface_name": "default",
            "transport_name": "tcp",
            "login_timeout": 8,
            "initial_login_retry_max": 1,
            "replacement_timeout": 5,
            "multiple": 0,
            "username": "",
            "password": b"",
        }
        if "scan" in login.fields:
            wanted["scan"] = 0
        assert {name: login.fields[name] for name in wanted} == wanted
        assert len(host.iscsid.of(INAME)) <= PROBES_MAX
        host.handle.detach([target]).finish()
        (logout,) = host.iscsid.of(LOGOUT)
        assert (logout.size, logout.sid) == (size, 1)
        assert host.clean


def test_ipv6_portal(host: FakeHost) -> None:
    host.export()
    host.handle.attach([Target("fd00:0::1", 3260, IQN, 1)]).finish()
    (login,) = host.iscsid.of(LOGIN)
    assert login.fields is not None
    assert login.fields["address"] == "fd00::1"


@pytest.mark.parametrize("size", [100, 12000, UNKNOWN, 20000])
def test_unknown_size(library: Library, tmp_path: Path, size: int) -> None:
    with FakeHost(library, tmp_path, request_size=size) as host:
        host.export()
        error = host.handle.attach(host.targets(2)).failure()
        assert error.code == "ISCSID_LAYOUT"
        assert all(str(known) in error.message for known in SIZES)
        assert str(host.root / "layouts") in error.message
        assert not host.iscsid.of(LOGIN)
        assert len(host.iscsid.requests) <= 2 * PROBES_MAX


def test_operator_layout(library: Library, tmp_path: Path) -> None:
    with FakeHost(library, tmp_path, request_size=UNKNOWN) as host:
        volume = host.export()
        path = host.root / "layouts" / "mine.layout"
        write_layout(path)
        host.iscsid.layout = Layout(path)
        assert host.handle.attach(host.targets(2)).finish().wwid == volume.wwid
        assert host.iscsid.of(LOGIN)[0].fields is not None


def test_operator_layout_added_while_running(library: Library, tmp_path: Path) -> None:
    with FakeHost(library, tmp_path, request_size=UNKNOWN) as host:
        volume = host.export()
        assert host.handle.attach(host.targets(2)).failure().code == "ISCSID_LAYOUT"
        path = host.root / "layouts" / "mine.layout"
        write_layout(path)
        host.iscsid.layout = Layout(path)
        assert host.handle.attach(host.targets(2)).finish().wwid == volume.wwid


def belong_to_another(path: Path, uid: int) -> None:
    """Only root can give files away; others link to what is root's."""
    if os.geteuid() == 0:
        os.chown(path, uid, -1)
    else:
        path.unlink()
        path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("mode", "uid"), [(0o664, None), (0o646, None), (0o644, 1)], ids=["group", "others", "owner"]
)
def test_operator_layout_of_others(
    library: Library, tmp_path: Path, mode: int, uid: int | None
) -> None:
    """Whoever may write that file would choose where root's daemon finds its strings."""
    with FakeHost(library, tmp_path, request_size=UNKNOWN) as host:
        host.export()
        path = host.root / "layouts" / "mine.layout"
        write_layout(path)
        path.chmod(mode)
        host.iscsid.layout = Layout(path)
        if uid is not None:
            belong_to_another(path, uid)
        assert host.handle.attach(host.targets()).failure().code == "ISCSID_LAYOUT"
        assert not host.iscsid.of(LOGIN)
        assert any("mine.layout" in text for text in host.handle.log)


def test_asked_once_per_iscsid(host: FakeHost) -> None:
    for lun in range(3):
        host.export(lun=lun, iqn=f"{IQN}{lun}")
        host.handle.attach(host.targets(2, lun=lun, iqn=f"{IQN}{lun}")).finish()
    assert len(host.iscsid.of(INAME)) <= PROBES_MAX


def test_asked_each_time_without_pid_file(host: FakeHost) -> None:
    """Nobody tells whether it is the same iscsid."""
    (host.run / "iscsid.pid").unlink()
    host.export()
    host.handle.attach(host.targets(2)).finish()
    before = len(host.iscsid.of(INAME))
    host.handle.detach(host.targets(2)).finish()
    assert len(host.iscsid.of(INAME)) == before + 1


def test_listener_tells_which_process(host: FakeHost) -> None:
    """iscsid -f writes no pid file, but is the one that listens."""
    (host.run / "iscsid.pid").unlink()
    host.iscsid.stop()
    host.foreground = True
    host.iscsid.start()
    host.export()
    host.handle.attach(host.targets(2)).finish()
    before = len(host.iscsid.of(INAME))
    host.handle.detach(host.targets(2)).finish()
    assert len(host.iscsid.of(INAME)) == before


@pytest.mark.parametrize("foreground", [False, True], ids=["forked", "-f"])
@pytest.mark.parametrize(("before", "after"), [(16104, 16112), (16136, 12856), (8392, 16088)])
def test_upgrade_between_operations(
    library: Library, tmp_path: Path, before: int, after: int, foreground: bool
) -> None:
    host = FakeHost(library, tmp_path, request_size=before)
    host.foreground = foreground
    with host:
        host.export()
        host.export(lun=2, iqn=f"{IQN}2")
        host.handle.attach(host.targets(2)).finish()
        host.iscsid.restart(after)
        host.set_iscsid_pid(os.getppid())
        host.handle.attach(host.targets(2, iqn=f"{IQN}2", lun=2)).finish()
        host.handle.detach(host.targets(2)).finish()
        host.handle.detach(host.targets(2, iqn=f"{IQN}2", lun=2)).finish()
        assert not wrong_logins(host)
        assert host.clean
        assert {r.fields["target_name"] for r in host.iscsid.of(LOGIN) if r.fields} == {
            IQN,
            f"{IQN}2",
        }


def test_upgrade_unnoticed(library: Library, tmp_path: Path) -> None:
    """The same process listens, but a larger iscsid drops what is too short: ask again."""
    listen = socket.socket.listen
    with FakeHost(library, tmp_path, request_size=16104) as host:
        host.iscsid.listen = listen
        host.iscsid.restart()
        host.export()
        host.export(lun=2)
        host.handle.attach(host.targets(1)).finish()
        host.iscsid.restart(16112)
        host.handle.attach([Target(f"{NET}.1.9", 3260, IQN, 2)]).finish()
        assert not wrong_logins(host)
        outcomes = [r.outcome for r in host.iscsid.of(LOGIN)]
        assert outcomes == ["answered", "too short", "answered"]


@pytest.mark.parametrize("after", [16104, 16112, 16088, 12856])
def test_upgrade_during_a_login(library: Library, tmp_path: Path, after: int) -> None:
    with FakeHost(library, tmp_path, request_size=16104, login_delay=60.0) as host:
        volume = host.export()
        operation = host.handle.attach(host.targets(4))
        assert until(lambda: len(host.iscsid.of(LOGIN)) == 4 and host.iscsid.max_in_flight >= 4)
        # the sessions that were only begun are gone with it
        host.iscsid.sessions.clear()
        host.iscsid.login_delay = 0.0
        host.set_iscsid_pid(os.getppid())
        host.iscsid.restart(after)
        made = operation.finish()
        assert made.wwid == volume.wwid
        assert [path.state for path in made.paths] == ["ACTIVE"] * 4
        assert not wrong_logins(host)


def test_stopped_during_a_login(host: FakeHost) -> None:
    host.export()
    host.iscsid.login_delay = 60.0
    operation = host.handle.attach(host.listen(2))
    assert until(lambda: len(host.iscsid.of(LOGIN)) == 2)
    host.iscsid.stop()
    with at_most(2.5):  # it may be a restart
        assert operation.failure().code == "ISCSID_DOWN"


def test_upgrade_to_unknown_during_a_login(library: Library, tmp_path: Path) -> None:
    with FakeHost(library, tmp_path, request_size=16104, login_delay=60.0) as host:
        host.export()
        operation = host.handle.attach(host.targets(2))
        assert until(lambda: len(host.iscsid.of(LOGIN)) == 2)
        host.iscsid.restart(UNKNOWN)
        assert operation.failure().code == "ISCSID_LAYOUT"
