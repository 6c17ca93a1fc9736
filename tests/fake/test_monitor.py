# SPDX-License-Identifier: Apache-2.0
"""Paths that fail without multipathd: who takes them back, and who must not."""

from __future__ import annotations

import errno
import time

import pytest

from fake.dm import Map
from fake.host import Disk, FakeHost, at_most, new_volume, until
from fake.multipathd import FakeMultipathd


def attached(host: FakeHost, count: int = 2) -> Map:
    host.export()
    host.handle.attach(host.targets(count)).finish()
    (item,) = host.dm.maps.values()
    host.calls.clear()
    return item


def looks(host: FakeHost) -> int:
    return len(host.passed("dm.status"))


def stays_failed(host: FakeHost, item: Map, disk: Disk, seconds: float = 1.3) -> None:
    """For longer than until the second look."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        assert disk.dev in item.failed
        time.sleep(0.01)
    assert not [text for text in host.dm.messages if text.startswith("reinstate")]


def rests(host: FakeHost, seconds: float = 0.3) -> None:
    """Nobody asks the kernel for anything."""
    time.sleep(seconds)
    host.calls.clear()
    time.sleep(seconds)
    assert host.calls == []


# --- taken back -----------------------------------------------------------------------------------


def test_a_path_that_works_again(host: FakeHost) -> None:
    item = attached(host)
    with at_most(1.0):
        host.dm.fail(item, host.disks["sda"].dev)
        assert until(lambda: not item.failed)
    assert host.dm.messages == ["reinstate_path 8:0"]
    assert until(lambda: any("sda of map dm-0 works again" in text for text in host.handle.log))
    rests(host)


def test_all_paths(host: FakeHost) -> None:
    item = attached(host, 4)
    host.dm.fail(item, *item.members)
    assert until(lambda: not item.failed)
    rests(host)


def test_nothing_is_asked_while_all_is_well(host: FakeHost) -> None:
    attached(host)
    rests(host)


@pytest.mark.parametrize("point", ["ready", "inquiry"])
def test_a_path_that_does_not_answer_yet(host: FakeHost, point: str) -> None:
    item = attached(host)
    host.fail(point, errno.EIO, times=1)
    begin = time.monotonic()
    host.dm.fail(item, host.disks["sda"].dev)
    assert until(lambda: not item.failed)
    assert time.monotonic() - begin > 0.9
    assert host.passed("ready") == ["sda"] * 2


def test_a_session_that_is_down_is_not_asked(host: FakeHost) -> None:
    item = attached(host)
    disk = host.disks["sda"]
    host.set_state(disk.session, "FAILED")
    host.dm.fail(item, disk.dev)
    stays_failed(host, item, disk)
    assert looks(host) >= 2
    assert not host.passed("ready")
    host.set_state(disk.session, "LOGGED_IN")
    assert until(lambda: not item.failed)


@pytest.mark.parametrize("state", ["offline", "blocked", "transport-offline"])
def test_a_disk_that_is_not_running_is_not_asked(host: FakeHost, state: str) -> None:
    item = attached(host)
    disk = host.disks["sda"]
    (disk.folder / "state").write_text(f"{state}\n")
    host.dm.fail(item, disk.dev)
    stays_failed(host, item, disk)
    assert not host.passed("ready")
    (disk.folder / "state").write_text("running\n")
    assert until(lambda: not item.failed)


def test_failed_before_the_attach(host: FakeHost) -> None:
    """By whoever had the map before; nobody sends an event for it again."""
    volume = host.export()
    targets = host.targets(2)
    host.handle.attach(targets).finish()
    host.handle.close()
    (item,) = host.dm.maps.values()
    host.dm.fail(item, host.disks["sda"].dev)
    assert volume.uuid == item.uuid
    made = host.open().attach(targets).finish()
    assert "INACTIVE" in [path.state for path in made.paths]
    assert until(lambda: not item.failed)


def test_events_are_lost(host: FakeHost) -> None:
    item = attached(host)
    item.failed.add(host.disks["sda"].dev)
    host.uevent("LOST")
    assert until(lambda: not item.failed)
    rests(host)


def test_a_path_that_fails_at_once_again(host: FakeHost) -> None:
    """Ready, and yet it fails I/O: not round and round."""
    item = attached(host)
    disk = host.disks["sda"]
    host.dm.fail(item, disk.dev)
    assert until(lambda: not item.failed)
    begin = time.monotonic()
    host.dm.fail(item, disk.dev)
    assert until(lambda: not item.failed)
    assert time.monotonic() - begin > 0.9


def test_the_kernel_does_not_tell_for_a_while(host: FakeHost) -> None:
    item = attached(host)
    host.fail("dm.status", errno.ENOMEM, times=2)
    host.dm.fail(item, host.disks["sda"].dev)
    assert until(lambda: not item.failed)
    assert len([text for text in host.handle.log if "map dm-0 cannot be looked at" in text]) == 1
    rests(host)


# --- not taken back -------------------------------------------------------------------------------


def test_another_volume_is_never_taken_back(host: FakeHost) -> None:
    """The LUN was given to somebody else while the path was down."""
    item = attached(host)
    disk = host.disks["sda"]
    disk.volume = new_volume()
    host.dm.fail(item, disk.dev)
    stays_failed(host, item, disk)
    assert len(host.passed("ready")) >= 2
    told = [text for text in host.handle.log if "sda in map dm-0 is another volume now" in text]
    assert len(told) == 1


def test_a_disk_that_is_gone(host: FakeHost) -> None:
    item = attached(host)
    disk = host.disks["sda"]
    with host.lock:
        host._vanish(disk)
    host.dm.fail(item, disk.dev)
    stays_failed(host, item, disk)
    assert not host.passed("ready")


def test_a_map_that_nobody_attached_here(host: FakeHost) -> None:
    item = attached(host)
    other = host.dm.make("mpath-other", [], 8)
    other.failed.add((8, 0))
    host.map_event(other, "change", "DM_ACTION=PATH_FAILED")
    host.map_event(item, "change", "DM_ACTION=PATH_REINSTATED")
    host.map_event(item, "change")
    rests(host)
    assert not host.dm.messages


def test_detached(host: FakeHost) -> None:
    attached(host)
    host.handle.detach(host.targets(2)).finish()
    host.calls.clear()
    host.uevent("LOST")
    rests(host)


def test_removed_by_somebody(host: FakeHost) -> None:
    """Its number may be another map's now."""
    item = attached(host)
    disk = host.disks["sda"]
    with host.lock:
        host.dm._remove(item)
    host.uevent("LOST")
    rests(host)
    assert disk.present


def test_removed_while_a_path_is_failed(host: FakeHost) -> None:
    item = attached(host)
    host.fail("ready", errno.EIO, times=None)
    host.dm.fail(item, host.disks["sda"].dev)
    assert until(lambda: host.passed("ready"))
    with host.lock:
        host.dm._remove(item)
    time.sleep(1.2)  # longer than until the next look would have been
    rests(host)


# --- multipathd -----------------------------------------------------------------------------------


def queue(host: FakeHost, item: Map) -> None:
    """As a multipathd with no_path_retry has it."""
    with host.lock:
        host.dm.queue(item, True)


def test_multipathd_does_it_while_it_runs(host: FakeHost) -> None:
    """Started after the attach; killed later, with a map that queues."""
    item = attached(host)
    disk = host.disks["sda"]
    with FakeMultipathd(host) as daemon:
        queue(host, item)
        host.dm.fail(item, disk.dev)
        stays_failed(host, item, disk)
        assert not host.passed("ready")
        assert not host.dm.messages
        assert not daemon.commands
    assert until(lambda: not item.failed)
    assert host.dm.messages == ["reinstate_path 8:0"]
    assert until(lambda: not host.dm.queues(item), 12.0)
    assert host.dm.messages == ["reinstate_path 8:0", "fail_if_no_path"]
    assert until(lambda: any("dm-0 queued I/O without end" in text for text in host.handle.log))
    rests(host)


def test_multipathd_restarts_while_no_path_is_left(host: FakeHost) -> None:
    """Its map goes on queueing: for more than one look, and then again from the beginning."""
    item = attached(host)
    host.fail("ready", errno.EIO, times=None)
    queue(host, item)
    host.dm.fail(item, *item.members)
    time.sleep(3.5)
    assert len(host.passed("ready")) >= 2 * len(item.members)
    with FakeMultipathd(host):
        time.sleep(4.5)
        before = looks(host)
    assert until(lambda: looks(host) > before + 2, 12.0)
    assert host.dm.messages == []


def test_multipathd_comes_during_a_look(host: FakeHost) -> None:
    """Then it is the one to change its map."""
    item = attached(host)
    disk = host.disks["sda"]
    daemon = FakeMultipathd(host)
    host.call("ready", daemon.__enter__)
    host.dm.fail(item, disk.dev)
    assert until(lambda: host.passed("ready"))
    stays_failed(host, item, disk)
    assert host.passed("ready") == ["sda"]
    daemon.stop()


# --- groups ---------------------------------------------------------------------------------------


def test_back_to_the_better_group(host: FakeHost) -> None:
    host.alua = {1: 0x01, 2: 0x00, 3: 0x01, 4: 0x00}
    item = attached(host, 4)
    best = [
        host.disks[name].dev for name in host.disks if host.port_group(host.disks[name]) in (2, 4)
    ]
    assert item.active is not None
    assert set(item.active.groups[0]) == set(best)
    host.fail("ready", errno.EIO, times=2)
    host.dm.fail(item, *best)
    assert item.current == 2
    assert until(lambda: not item.failed and item.current == 1)
    assert host.dm.messages[-1] == "switch_group 1"
    rests(host)


def test_the_group_in_use_is_as_good_as_any(host: FakeHost) -> None:
    """The array made the other side the better one meanwhile."""
    host.alua = {1: 0x00, 2: 0x01}
    item = attached(host)
    (best,) = (disk for disk in host.disks.values() if host.port_group(disk) == 1)
    host.fail("ready", errno.EIO, times=1)
    host.dm.fail(item, best.dev)
    host.alua = {1: 0x01, 2: 0x00}
    assert until(lambda: not item.failed)
    rests(host)
    assert item.current == 2
    assert host.dm.messages == [f"reinstate_path {best.dev[0]}:{best.dev[1]}"]


def test_the_groups_change_while_the_target_is_asked(host: FakeHost) -> None:
    """By a multipathd that came and went: the numbers are other groups' now."""
    host.alua = {1: 0x00, 2: 0x01}
    item = attached(host)
    (best,) = (disk for disk in host.disks.values() if host.port_group(disk) == 1)

    def turn_round() -> None:
        with host.lock:
            assert item.active is not None
            first, second = item.active.groups
            groups = "".join(f" service-time 0 1 1 {a}:{b} 1" for ((a, b),) in (second, first))
            item.active.params = f"0 1 alua 2 1{groups}"
            item.current = 1

    host.call("port_groups", turn_round)
    host.dm.fail(item, best.dev)
    assert until(lambda: "switch_group 2" in host.dm.messages)
    assert item.active is not None
    assert item.active.groups[1] == [best.dev]
    assert "switch_group 1" not in host.dm.messages


# --- calls that hang ------------------------------------------------------------------------------


def test_one_look_at_a_time(host: FakeHost) -> None:
    item = attached(host, 3)
    gate = host.block("ready")
    host.dm.fail(item, host.disks["sda"].dev)
    assert gate.reached()
    before = looks(host)
    for name in ("sdb", "sdc"):
        host.dm.fail(item, host.disks[name].dev)
    time.sleep(0.2)
    assert looks(host) == before
    gate.release()
    assert until(lambda: not item.failed)


def test_closed_during_a_look(host: FakeHost) -> None:
    item = attached(host)
    gate = host.block("ready")
    host.dm.fail(item, host.disks["sda"].dev)
    assert gate.reached()
    with at_most(1.0):
        host.handle.close()
    gate.release()


def test_detached_during_a_look(host: FakeHost) -> None:
    item = attached(host)
    gate = host.block("ready")
    host.dm.fail(item, host.disks["sda"].dev)
    assert gate.reached()
    host.handle.detach(host.targets(2)).finish()
    assert host.clean
    gate.release()
    rests(host)


def test_a_look_that_never_begins(host: FakeHost) -> None:
    """All threads hang, when a queueing map matters most: the look before it still counts."""
    host.open(worker_threads=1)
    item = attached(host)
    host.export(lun=2)
    stuck = host.handle.attach(host.targets(2, lun=2)).finish()
    host.fail("ready", errno.EIO, times=None)
    queue(host, item)
    host.dm.fail(item, host.disks["sda"].dev)
    assert until(lambda: host.passed("ready"))
    gate = host.block("fsync", stuck.device)
    hanging = host.handle.detach(host.targets(2, lun=2), timeout=60.0)
    assert gate.reached()
    time.sleep(22.5)  # the next look is given up after 20 s
    host.calls.clear()
    gate.release()
    assert until(lambda: host.dm.messages)
    assert host.dm.messages == ["fail_if_no_path"]
    asked = [point for point, _ in host.calls if point in ("ready", "dm.message")]
    assert asked[0] == "dm.message"  # by the first look
    assert not any("cannot be looked at" in text for text in host.handle.log)
    hanging.finish()
