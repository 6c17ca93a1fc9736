# SPDX-License-Identifier: Apache-2.0
"""Targets that discovery offered, and that may be another volume: identity decides."""

from __future__ import annotations

from fake.host import IQN, NET, FakeHost, at_most, new_volume, until
from fake.iscsid import LOGIN, LOGOUT, Action, Answer, Default, Request
from fake.library import Target


def others(host: FakeHost, count: int) -> list[Target]:
    """One target for each further portal."""
    made = [Target(f"{NET}.2.{i}", 3260, f"{IQN}-{i}", 1) for i in range(1, count + 1)]
    return host.serve(made)


def test_of_the_same_volume(host: FakeHost) -> None:
    volume = host.export()
    candidates = others(host, 3)
    for target in candidates:
        host.export(target.iqn, volume=volume)
    made = host.handle.attach(host.targets(1), candidates=candidates).finish()
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4
    assert len(host.dm.maps[volume.uuid].members) == 4


def test_of_another_volume(host: FakeHost) -> None:
    """More of them than of ours: candidates have no say in who the volume is."""
    volume, other = host.export(), new_volume()
    candidates = others(host, 3)
    for target in candidates:
        host.export(target.iqn, volume=other)
    made = host.handle.attach(host.targets(1), candidates=candidates).finish()
    assert made.wwid == volume.wwid
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "FAILED", "FAILED"]
    assert {path.error.code for path in made.paths[1:]} == {"IDENTITY"}
    assert all("multipathd is not running" in text for text in made.warnings)
    assert until(lambda: len(host.sessions) == 1 and len(host.disks) == 1)
    assert len(host.iscsid.of(LOGOUT)) == 3


def test_of_another_volume_that_is_attached(host: FakeHost) -> None:
    """A session and disk that we did not make are not touched."""
    host.export()
    (candidate,) = others(host, 1)
    neighbour = host.export(candidate.iqn)
    host.open().attach([candidate]).finish()
    made = host.handle.attach(host.targets(1), candidates=[candidate]).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED"]
    assert len(host.sessions) == 2
    assert len(host.dm.maps[neighbour.uuid].members) == 1
    assert not host.iscsid.of(LOGOUT)


def test_without_access(host: FakeHost) -> None:
    """Another tenant's target rejects us: no failure of the volume, and nobody waits for it."""
    host.export()

    def reject(request: Request) -> Action:
        assert request.fields is not None
        return Answer(error=24) if request.fields["target_name"] != IQN else Default()

    host.iscsid.handlers[LOGIN] = reject
    made = host.handle.attach(host.targets(2), candidates=others(host, 2)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE", "FAILED", "FAILED"]


def test_not_without_the_volume(host: FakeHost) -> None:
    """The target that was named has no such LUN: whatever candidates have is not taken for it."""
    candidates = others(host, 2)
    for target in candidates:
        host.export(target.iqn)
    error = host.handle.attach(host.targets(2), candidates=candidates).failure()
    assert error.code == "LUN_NOT_FOUND"
    assert until(lambda: host.clean)


def test_whole_map_is_detached(host: FakeHost) -> None:
    """By the one target that the caller knows."""
    volume = host.export()
    candidates = others(host, 2)
    for target in candidates:
        host.export(target.iqn, volume=volume)
    host.handle.attach(host.targets(1), candidates=candidates).finish()
    result = host.handle.detach(host.targets(1), whole_map=True).finish()
    assert (result.devices_removed, result.sessions_removed) == (3, 3)
    assert host.clean


def test_neighbours_stay_when_the_whole_map_goes(host: FakeHost) -> None:
    volume = host.export()
    (candidate,) = others(host, 1)
    host.export(candidate.iqn, volume=volume)
    host.handle.attach(host.targets(1), candidates=[candidate]).finish()
    neighbour = host.export(candidate.iqn, lun=2)
    host.open().attach([candidate._replace(lun=2)]).finish()
    result = host.handle.detach(host.targets(1), whole_map=True).finish()
    assert (result.devices_removed, result.sessions_removed, result.sessions_kept) == (2, 1, 1)
    assert list(host.dm.maps) == [neighbour.uuid]


def test_named_target_is_silent(host: FakeHost) -> None:
    """Candidates alone are no volume, however many are ready."""
    host.export()
    (dead,) = host.listen()
    candidates = others(host, 2)
    for target in candidates:
        host.export(target.iqn)

    def silent(request: Request) -> Action:
        assert request.fields is not None
        return Answer(delay=60.0) if request.fields["port"] == dead.port else Default()

    host.iscsid.handlers[LOGIN] = silent
    error = host.handle.attach([dead], timeout=3.5, candidates=candidates).failure()
    assert error.code == "TIMEOUT"
    assert "no answer from the portal" in error.message
    assert until(lambda: not host.disks and not host.dm.maps)


def test_superfluous_sessions_are_gone_at_return(host: FakeHost) -> None:
    """A command that ends then leaves nothing behind."""
    host.export()
    candidates = others(host, 2)
    for target in candidates:
        host.export(target.iqn, volume=new_volume())
    host.iscsid.logout_delay = 0.3
    host.handle.attach(host.targets(2), candidates=candidates).finish()
    assert len(host.sessions) == 2
    assert len(host.disks) == 2


def test_a_logout_that_hangs_does_not_keep_the_volume(host: FakeHost) -> None:
    host.export()
    (candidate,) = others(host, 1)
    host.export(candidate.iqn, volume=new_volume())
    host.iscsid.logout_delay = 60.0
    with at_most(3.0):
        made = host.handle.attach(host.targets(2), candidates=[candidate]).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE", "FAILED"]
