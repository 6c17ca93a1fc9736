# SPDX-License-Identifier: Apache-2.0
"""Hazards of docs/hazards.md that no other test has for its subject."""

from __future__ import annotations

import time

from fake.host import FakeHost, at_most
from fake.iscsid import LOGIN


def test_logins_ask_for_a_manual_scan(host: FakeHost) -> None:
    """Else the kernel brings in all LUNs of the target, now and at its events (hazard 1)."""
    host.export()
    host.handle.attach(host.targets(3)).finish()
    logins = [request.fields for request in host.iscsid.requests if request.command == LOGIN]
    sent = [fields for fields in logins if fields]
    assert [fields["scan"] for fields in sent] == [0, 0, 0]
    assert {fields["nr_sessions"] for fields in sent} == {1}


def test_nothing_scans_a_whole_target(host: FakeHost) -> None:
    host.export()
    host.export(lun=2)
    host.handle.attach(host.targets(2)).finish()
    assert sorted(disk.address[3] for disk in host.disks.values()) == [1, 1]


def test_a_detach_scans_nothing(host: FakeHost) -> None:
    """A scan would bring back what was just deleted (hazard 2)."""
    host.export()
    host.handle.attach(host.targets(3)).finish()
    before = len(host.passed("scan"))
    host.handle.detach(host.targets(3)).finish()
    assert len(host.passed("scan")) == before
    assert host.clean


def test_two_sessions_to_one_node(host: FakeHost) -> None:
    """Somebody's nr_sessions, or a race: the second one's disk is the volume's too (hazard 7)."""
    host.export()
    (target,) = host.targets(1)
    for _ in range(2):
        host.add_disk(host.add_session(target), 1)
    host.handle.attach([target]).finish()
    host.handle.detach([target]).finish()
    assert host.clean


def test_a_second_session_with_a_neighbour_stays(host: FakeHost) -> None:
    """What another LUN uses is kept, of each session for itself."""
    host.export()
    host.export(lun=2)
    (target,) = host.targets(1)
    sessions = [host.add_session(target) for _ in range(2)]
    for session in sessions:
        host.add_disk(session, 1)
    host.add_disk(sessions[1], 2)
    made = host.handle.detach([target]).finish()
    assert made.devices_removed == 2
    assert list(host.sessions) == [sessions[1].sid]


def test_a_delete_takes_long(host: FakeHost) -> None:
    """The path died a moment ago, and the kernel waits for commands of its own (hazard 13). The
    others do not wait for it.
    """
    host.export()
    host.handle.attach(host.targets(4)).finish()
    host.call("delete", lambda: time.sleep(0.5))
    host.call("delete", lambda: time.sleep(0.5))
    with at_most(0.9):
        made = host.handle.detach(host.targets(4)).finish()
    assert made.devices_removed == 4
    assert host.clean
