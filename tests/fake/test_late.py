# SPDX-License-Identifier: Apache-2.0
"""Paths whose portal is away when the caller gets its answer: they join the map later."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from fake.host import IQN, NET, Disk, FakeHost, new_volume, until
from fake.iscsid import LOGIN, LOGOUT, Action, Answer, Default, Request
from fake.library import PATIENCE, Target

TRANSPORT, PDU_TIMEOUT, AUTH = 4, 11, 24  # iscsid's answers


class Portal:
    """One that can be away: refuses TCP connections, and logins through iscsid."""

    def __init__(self, host: FakeHost, error: int = TRANSPORT) -> None:
        self.host = host
        self.error = error
        self._listener: socket.socket | None = None
        with socket.socket() as item:  # a free port
            item.bind(("127.0.0.1", 0))
            self.target = Target("127.0.0.1", item.getsockname()[1], IQN, 1)
        self._answer: Callable[[Request], Action] = lambda _: Answer(error=error)
        host.iscsid.handlers[LOGIN] = self._handle

    def _handle(self, request: Request) -> Action:
        assert request.fields is not None
        return self._answer(request) if request.fields["port"] == self.target.port else Default()

    def come_back(self, answer: Callable[[Request], Action] = lambda _: Default()) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", self.target.port))
        self.host._listeners.append(self._listener)


@pytest.fixture
def away(host: FakeHost) -> Portal:
    return Portal(host)


def members(host: FakeHost) -> int:
    (item,) = host.dm.maps.values()
    return len(item.members)


@pytest.mark.parametrize("error", [TRANSPORT, PDU_TIMEOUT])
def test_joins_when_its_portal_is_back(host: FakeHost, error: int) -> None:
    away = Portal(host, error)
    host.export()
    made = host.handle.attach([away.target, *host.targets(2)]).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE", "ACTIVE"]
    assert made.paths[0].error.code == ("REFUSED" if error == TRANSPORT else "NO_ANSWER")
    assert members(host) == 2
    away.come_back()
    assert until(lambda: members(host) == 3, 10)
    assert until(lambda: any("is back" in line for line in host.handle.log))
    # and it stays: a detach takes it all away again
    host.handle.detach([away.target, *host.targets(2)]).finish()
    assert host.clean


def test_a_login_that_is_only_slow(host: FakeHost) -> None:
    """The one login that iscsid is busy with; no second one."""
    host.export()
    (slow,) = host.listen()
    host.iscsid.login_delay = lambda request: (
        3.0 if request.fields is not None and request.fields["port"] == slow.port else 0.0
    )
    made = host.handle.attach([slow, *host.targets(1)]).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    assert until(lambda: members(host) == 2)
    assert not host.iscsid.of(LOGOUT)
    assert host.logins == 2


def test_a_login_that_comes_while_the_map_is_made(host: FakeHost) -> None:
    host.export()
    (slow,) = host.listen()
    host.iscsid.login_delay = lambda request: (
        2.3 if request.fields is not None and request.fields["port"] == slow.port else 0.0
    )
    gate = host.block("dm.create")
    operation = host.handle.attach([slow, *host.targets(2)])
    assert gate.reached()
    assert until(lambda: len(host.passed("inquiry")) == 3)
    gate.release()
    made = operation.finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE", "ACTIVE"]
    assert until(lambda: members(host) == 3)
    assert len(host.sessions) == 3


def test_detach_ends_the_waiting(host: FakeHost, away: Portal) -> None:
    host.export()
    targets = [away.target, *host.targets(2)]
    host.handle.attach(targets).finish()
    host.handle.detach(targets).finish()
    logins = host.logins
    away.come_back()
    assert not until(lambda: host.logins > logins, 2.5 / PATIENCE)
    assert host.clean


def test_attach_again_takes_it_over(host: FakeHost, away: Portal) -> None:
    host.export()
    targets = [away.target, *host.targets(2)]
    first = host.handle.attach(targets).finish()
    away.come_back()
    second = host.handle.attach(targets).finish()
    assert second.device == first.device
    assert [path.state for path in second.paths] == ["ACTIVE"] * 3
    assert members(host) == 3


def test_another_disk_is_kept_out(host: FakeHost, away: Portal) -> None:
    """Its identity is read before it joins, as of any path."""
    host.export()
    host.export(volume=new_volume(), address="127.0.0.1")
    host.handle.attach([away.target, *host.targets(2)]).finish()
    away.come_back()
    assert until(lambda: any("kept out" in line for line in host.handle.log), 10)
    assert until(lambda: len(host.sessions) == 2)
    assert members(host) == 2
    assert len(host.disks) == 2


def test_of_another_size_than_the_map(host: FakeHost, away: Portal) -> None:
    """The volume was extended meanwhile, and this portal does not know it yet."""
    volume = host.export()
    size = volume.size

    def tell_the_old_size(disk: Disk) -> float:
        disk.told = size
        return 0.0

    host.handle.attach([away.target, *host.targets(2)]).finish()
    volume.size *= 2
    host.open().extend(host.targets(2)).finish()
    host.device_delay = tell_the_old_size
    away.come_back()
    assert until(lambda: any("kept out, extend the volume" in line for line in host.handle.log), 10)
    assert until(lambda: len(host.sessions) == len(host.disks) == 2)
    assert members(host) == 2
    assert not any("joined" in line for line in host.handle.log)


def test_the_map_is_gone(host: FakeHost, away: Portal) -> None:
    """Somebody else detached the volume: nothing is made anew."""
    host.export()
    targets = host.targets(2)
    host.handle.attach([away.target, *targets]).finish()
    other = host.open()
    other.detach(targets).finish()
    assert not host.dm.maps
    away.come_back()
    assert until(lambda: len(host.iscsid.of(LOGOUT)) == 3, 20)
    assert until(lambda: host.clean)


def test_refused_when_it_is_back(host: FakeHost, away: Portal) -> None:
    """Then waiting is of no use: no login again and again."""
    host.export()
    host.handle.attach([away.target, *host.targets(2)]).finish()
    logins = host.logins
    away.come_back(lambda _: Answer(error=AUTH))
    assert until(lambda: host.logins == logins + 1, 10)
    assert not until(lambda: host.logins > logins + 1, 2.5 / PATIENCE)
    assert members(host) == 2


def test_closing_the_handle_ends_the_waiting(host: FakeHost, away: Portal) -> None:
    host.export()
    host.handle.attach([away.target, *host.targets(2)]).finish()
    host.handle.close()
    logins = host.logins
    away.come_back()
    assert not until(lambda: host.logins > logins, 2.0 / PATIENCE)


def test_closing_while_it_joins(host: FakeHost, away: Portal) -> None:
    host.export()
    host.handle.attach([away.target, *host.targets(2)]).finish()
    gate = host.block("dm.load")
    away.come_back()
    assert gate.reached(10 * PATIENCE)
    host.handle.close()
    gate.release()


def test_detach_waits_for_a_join(host: FakeHost, away: Portal) -> None:
    """The path may be in the map already: it is not taken from under it."""
    host.export()
    targets = [away.target, *host.targets(2)]
    host.handle.attach(targets).finish()
    gate = host.block("dm.load")
    away.come_back()
    assert gate.reached(10 * PATIENCE)
    operation = host.handle.detach(targets)
    assert not operation.wait(0.1)
    gate.release()
    operation.finish()
    assert host.clean


def test_a_volume_waits_for_each_of_its_portals(host: FakeHost) -> None:
    """Two volumes share a session that is away; both get their path, with one login."""
    away = Portal(host)
    first, second = host.export(lun=1), host.export(lun=2)
    for lun in (1, 2):
        mine = away.target._replace(lun=lun)
        made = host.handle.attach([mine, *host.targets(1, lun=lun)]).finish()
        assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    away.come_back()
    for volume in (first, second):
        assert until(lambda uuid=volume.uuid: len(host.dm.maps[uuid].members) == 2, 10)
    assert len(host.sessions) == 2


def test_disks_that_are_late_for_other_reasons_do_not_come_back(host: FakeHost) -> None:
    """A disk that never appeared is taken back, not waited for."""
    host.export()
    delay: Callable[[Disk], float | None] = lambda disk: (  # noqa: E731
        None if disk.session.address == f"{NET}.1.2" else 0.0
    )
    host.device_delay = delay
    made = host.handle.attach(host.targets(3), timeout=1.0).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "ACTIVE"]
    assert until(lambda: len(host.sessions) == 2)


def test_a_disk_that_never_appears(host: FakeHost) -> None:
    """It is given up in the end: others could not log its session out."""
    host.export()
    (slow,) = host.listen()
    host.iscsid.login_delay = lambda request: (
        2.5 if request.fields is not None and request.fields["port"] == slow.port else 0.0
    )
    host.device_delay = lambda disk: None if disk.session.port == slow.port else 0.0
    made = host.handle.attach([slow, *host.targets(1)], timeout=3.0).finish()
    assert [path.state for path in made.paths] == ["PENDING", "ACTIVE"]
    assert until(lambda: len(host.passed("scan")) == 2)
    assert until(lambda: any("for its block device" in line for line in host.handle.log), 10)
    assert until(lambda: len(host.sessions) == 1)
    assert until(lambda: list((host.root / "locks").iterdir()) == [])
