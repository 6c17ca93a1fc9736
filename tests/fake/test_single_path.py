# SPDX-License-Identifier: Apache-2.0
"""Without multipath: targets in order, the first that serves is the volume."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from fake.host import NET, FakeHost, at_most, until
from fake.iscsid import LOGIN, Action, Answer, Default, Request
from fake.library import Failure, Target


def only(port_or_address: object, action: Answer) -> Callable[[Request], Action]:
    def handle(request: Request) -> Action:
        assert request.fields is not None
        mine = port_or_address in (request.fields["port"], request.fields["address"])
        return action if mine else Default()

    return handle


def test_first_serves(host: FakeHost) -> None:
    volume = host.export()
    made = host.handle.attach(host.targets(3), single_path=True).finish()
    assert (made.device, made.wwid, made.name) == ("sda", volume.wwid, "")
    assert made.size_bytes == volume.size
    assert [path.state for path in made.paths] == ["ACTIVE", "UNUSED", "UNUSED"]
    assert [path.error.code for path in made.paths] == ["OK"] * 3
    assert host.logins == 1
    assert not host.dm.maps
    assert host.iscsid.of(LOGIN)[0].fields["replacement_timeout"] == 120


def test_twice(host: FakeHost) -> None:
    host.export()
    first = host.handle.attach(host.targets(2), single_path=True).finish()
    second = host.handle.attach(host.targets(2), single_path=True).finish()
    assert first.device == second.device
    assert host.logins == 1


def test_detach(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(3), single_path=True).finish()
    result = host.handle.detach(host.targets(3)).finish()
    assert (result.map_removed, result.devices_removed, result.sessions_removed) == (False, 1, 1)
    assert host.clean


def test_login_is_rejected(host: FakeHost) -> None:
    host.export()
    host.iscsid.handlers[LOGIN] = only(f"{NET}.1.1", Answer(error=19))
    made = host.handle.attach(host.targets(3), single_path=True).finish()
    assert [path.state for path in made.paths] == ["FAILED", "ACTIVE", "UNUSED"]
    assert made.paths[0].error.code == "LOGIN_REJECTED"


def test_portal_is_silent(host: FakeHost) -> None:
    """It gets its share of the time, the next ones the rest."""
    host.export()
    (dead,) = host.listen()
    host.iscsid.handlers[LOGIN] = only(dead.port, Answer(delay=60.0))
    with at_most(2.5):
        made = host.handle.attach([dead, *host.targets(1)], timeout=4.0, single_path=True).finish()
    assert [path.state for path in made.paths] == ["FAILED", "ACTIVE"]
    assert made.paths[0].error.code == "NO_ANSWER"


def test_lun_is_missing(host: FakeHost) -> None:
    """The session made for nothing is logged out before the next target is tried."""
    host.export(address=f"{NET}.1.2")
    made = host.handle.attach(host.targets(2), single_path=True).finish()
    assert [path.state for path in made.paths] == ["FAILED", "ACTIVE"]
    assert made.paths[0].error.code == "LUN_NOT_FOUND"
    assert [session.address for session in host.sessions.values()] == [f"{NET}.1.2"]


def test_inquiry_fails(host: FakeHost) -> None:
    host.export()
    host.fail("inquiry", errno.EIO, "sda")
    made = host.handle.attach(host.targets(2), single_path=True).finish()
    assert made.device == "sdb"
    assert until(lambda: list(host.disks) == ["sdb"] and len(host.sessions) == 1)


def test_none_serves(host: FakeHost) -> None:
    error = host.handle.attach(host.targets(3), single_path=True).failure()
    assert error.code == "LUN_NOT_FOUND"
    assert "3 of 3 paths failed" in error.message
    assert host.clean


def test_no_device_mapper_is_needed(host: FakeHost) -> None:
    host.export()
    (host.dev / "mapper" / "control").unlink()
    made = host.handle.attach(host.targets(1), single_path=True).finish()
    assert made.device == "sda"


def test_held_by_a_map(host: FakeHost) -> None:
    """multipathd may have taken it; the caller is told."""
    host.export()
    host.handle.attach(host.targets(1)).finish()
    made = host.handle.attach(host.targets(1), single_path=True).finish()
    assert made.device == "sda"
    assert "path of the multipath map dm-" in made.warnings[0]


def test_one_path_is_all_there_is(host: FakeHost) -> None:
    with pytest.raises(Failure, match="min_paths is 2") as caught:
        host.handle.attach(host.targets(2), min_paths=2, single_path=True)
    assert caught.value.code == "INVALID"


def test_cancel_between_targets(host: FakeHost) -> None:
    host.export()
    (dead,) = host.listen()
    host.iscsid.handlers[LOGIN] = only(dead.port, Answer(delay=60.0))
    targets: list[Target] = [dead, *host.targets(2)]
    operation = host.handle.attach(targets, timeout=20.0, single_path=True)
    assert not operation.wait(0.2)
    operation.cancel()
    assert operation.failure(2.0).code == "CANCELLED"
    assert host.clean
