# SPDX-License-Identifier: Apache-2.0
"""Extend on the simulated host: every path of the map is proven before the map grows."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from fake.dm import Map
from fake.host import IQN, NET, SIZE, Disk, FakeHost, Volume, at_most, new_volume, until
from fake.library import Failure, Target
from fake.multipathd import FakeMultipathd

LARGER = 2 * SIZE


@pytest.fixture
def daemon(host: FakeHost) -> Iterator[FakeMultipathd]:
    with FakeMultipathd(host) as made:
        yield made


def attached(host: FakeHost, count: int = 4) -> tuple[Volume, Map]:
    """A volume with its map, as large as ever."""
    volume = host.export()
    host.handle.attach(host.targets(count)).finish()
    (item,) = host.dm.maps.values()
    host.calls.clear()
    return volume, item


def bytes_of(item: Map) -> int:
    assert item.active is not None
    assert not item.suspended
    return item.active.sectors * 512


def disk_at(host: FakeHost, address: str) -> Disk:
    (session,) = (s for s in host.sessions.values() if s.address == address)
    (disk,) = session.disks.values()
    return disk


# --- the way it should be -------------------------------------------------------------------------


def test_extend(host: FakeHost) -> None:
    volume, item = attached(host)
    assert item.active is not None
    params = item.active.params
    volume.size = LARGER
    made = host.handle.extend(host.targets(4)).finish()
    assert (made.device, made.wwid) == (item.device, volume.wwid)
    assert (made.old_size_bytes, made.size_bytes) == (SIZE, LARGER)
    assert not made.multipathd_running
    assert not made.warnings
    assert bytes_of(item) == LARGER
    assert item.active.params == params
    assert sorted(host.passed("rescan")) == ["sda", "sdb", "sdc", "sdd"]
    assert host.passed("dm.load") == [item.uuid]
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4
    assert {path.address for path in made.paths} == {f"{NET}.1.{i}" for i in (1, 2, 3, 4)}
    assert {path.iqn for path in made.paths} == {IQN}
    times = made.times
    parts = (times.prepare_ns, times.rescan_ns, times.resize_ns)
    assert all(parts)
    assert sum(parts) <= times.total_ns
    assert all(0 < path.times.scan_end_ns <= path.times.identity_end_ns for path in made.paths)


def test_identity_is_asked_before_and_after_the_rescan(host: FakeHost) -> None:
    volume, _ = attached(host, 1)
    volume.size = LARGER
    host.handle.extend(host.targets(1)).finish()
    steps = [point for point, _ in host.calls if point in ("inquiry", "rescan", "dm.load")]
    assert steps == ["inquiry", "rescan", "inquiry", "dm.load"]


def test_one_target_finds_every_path(host: FakeHost) -> None:
    """Not only the path that the request names (the incumbent's defect G)."""
    volume, item = attached(host)
    volume.size = LARGER
    made = host.handle.extend(host.targets(1)).finish()
    assert made.path_count == 4
    assert {path.device for path in made.paths} == {"sda", "sdb", "sdc", "sdd"}
    assert len(host.passed("rescan")) == 4
    assert bytes_of(item) == LARGER


def test_nothing_to_do(host: FakeHost) -> None:
    volume, item = attached(host)
    for size in (SIZE, LARGER):
        volume.size = size
        host.handle.extend(host.targets(4)).finish()
        host.calls.clear()
        for wanted in (0, size):
            made = host.handle.extend(host.targets(4), size=wanted).finish()
            assert made.old_size_bytes == made.size_bytes == size
            assert not host.passed("dm.load")
    assert bytes_of(item) == LARGER


def test_in_use(host: FakeHost) -> None:
    volume, item = attached(host)
    item.open_count = 3
    volume.size = LARGER
    assert host.handle.extend(host.targets(4)).finish().size_bytes == LARGER
    item.open_count = 0


def test_features_and_groups_stay(host: FakeHost) -> None:
    """Somebody else's table, more than one group."""
    volume, item = attached(host)
    assert item.active is not None
    params = (
        "1 queue_if_no_path 1 alua 2 2 service-time 0 2 2 8:0 1 1 8:16 1 1 "
        "service-time 0 2 2 8:32 1 1 8:48 1 1 "
    )
    item.active.params = params
    volume.size = LARGER
    host.handle.extend(host.targets(4)).finish()
    assert item.active.params == params.strip()
    assert bytes_of(item) == LARGER


def test_at_once(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    operations = [host.handle.extend(host.targets(4)) for _ in range(4)]
    assert [operation.finish().size_bytes for operation in operations] == [LARGER] * 4
    assert host.passed("dm.load") == [item.uuid]


def test_as_from_two_processes(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    operations = [host.open().extend(host.targets(4)) for _ in range(3)]
    assert [operation.finish().size_bytes for operation in operations] == [LARGER] * 3
    assert bytes_of(item) == LARGER


def test_neighbours_are_left_alone(host: FakeHost) -> None:
    volume, _ = attached(host, 2)
    host.export(lun=2)
    host.handle.attach(host.targets(2, lun=2)).finish()
    host.calls.clear()
    volume.size = LARGER
    host.handle.extend(host.targets(2)).finish()
    assert sorted(host.passed("rescan")) == ["sda", "sdb"]
    assert len(host.passed("dm.load")) == 1


def test_detach_afterwards(host: FakeHost) -> None:
    volume, _ = attached(host)
    volume.size = LARGER
    host.handle.extend(host.targets(4)).finish()
    assert host.handle.attach(host.targets(4)).finish().size_bytes == LARGER
    host.handle.detach(host.targets(4)).finish()
    assert host.clean


# --- the size that the caller knows of ------------------------------------------------------------


def test_wait_for_the_size_wanted(host: FakeHost) -> None:
    """The storage takes its time to tell it."""
    volume, item = attached(host)
    threading.Timer(0.3, setattr, (volume, "size", LARGER)).start()
    made = host.handle.extend(host.targets(4), size=LARGER).finish()
    assert made.size_bytes == LARGER == bytes_of(item)


def test_more_than_wanted_is_taken(host: FakeHost) -> None:
    """Arrays round up."""
    volume, item = attached(host)
    volume.size = LARGER + (1 << 20)
    made = host.handle.extend(host.targets(4), size=LARGER).finish()
    assert made.size_bytes == volume.size == bytes_of(item)


def test_size_wanted_does_not_come(host: FakeHost) -> None:
    _, item = attached(host)
    with at_most(1.5):
        error = host.handle.extend(host.targets(4), timeout=1.0, size=LARGER).failure()
    assert (error.code, error.phase, error.retryable) == ("DEVICE", "identity", True)
    assert str(SIZE) in error.message
    assert str(LARGER) in error.message
    assert bytes_of(item) == SIZE
    assert len(host.passed("rescan")) > 8


def test_less_than_now_is_refused(host: FakeHost) -> None:
    _, item = attached(host)
    error = host.handle.extend(host.targets(4), size=SIZE // 2).failure()
    assert error.code == "INVALID"
    assert str(SIZE) in error.message
    assert str(SIZE // 2) in error.message
    assert not host.passed("rescan")
    assert bytes_of(item) == SIZE


# --- sizes that differ ----------------------------------------------------------------------------


def test_target_tells_it_late_on_one_path(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    late = disk_at(host, f"{NET}.1.3")
    late.told = SIZE
    threading.Timer(0.3, setattr, (late, "told", None)).start()
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert made.times.rescan_ns > 200_000_000
    counts = [host.passed("rescan").count(path.device) for path in made.paths]
    assert sorted(counts)[:3] == [1, 1, 1]  # only the late one is rescanned again
    assert max(counts) > 2


def test_one_path_keeps_the_old_size(host: FakeHost) -> None:
    """It answers, so the map must not become longer than it."""
    volume, item = attached(host)
    volume.size = LARGER
    late = disk_at(host, f"{NET}.1.3")
    late.told = SIZE
    with at_most(1.5):
        error = host.handle.extend(host.targets(4), timeout=1.0).failure()
    assert (error.code, error.phase, error.retryable) == ("DEVICE", "identity", True)
    for part in (late.name, f"{NET}.1.3", str(SIZE), str(LARGER), item.device):
        assert part in error.message
    assert (error.address, error.port) == (f"{NET}.1.3", 3260)
    assert bytes_of(item) == SIZE
    assert not host.passed("dm.load")
    late.told = None
    assert host.handle.extend(host.targets(4)).finish().size_bytes == LARGER


def test_shrinking_is_refused(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = SIZE // 2
    error = host.handle.extend(host.targets(4)).failure()
    assert (error.code, error.retryable) == ("MAP", False)
    assert str(SIZE) in error.message
    assert str(SIZE // 2) in error.message
    assert bytes_of(item) == SIZE
    assert not host.passed("dm.load")


# --- the wrong disk -------------------------------------------------------------------------------


def test_a_path_is_another_disk(host: FakeHost) -> None:
    """The LUN was given to another volume on one path: it is not even rescanned."""
    volume, item = attached(host)
    volume.size = LARGER
    wrong = disk_at(host, f"{NET}.1.2")
    wrong.volume = new_volume(LARGER)
    error = host.handle.extend(host.targets(4)).failure()
    assert (error.code, error.phase, error.retryable) == ("IDENTITY", "identity", False)
    for part in (wrong.name, wrong.volume.wwid, volume.wwid):
        assert part in error.message
    assert error.address == f"{NET}.1.2"
    assert wrong.name not in host.passed("rescan")
    assert bytes_of(item) == SIZE
    assert not host.passed("dm.load")


def test_it_becomes_another_disk_with_the_rescan(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    wrong = disk_at(host, f"{NET}.1.2")
    host.call("rescan", lambda: setattr(wrong, "volume", new_volume(LARGER)), wrong.name)
    assert host.handle.extend(host.targets(4)).failure().code == "IDENTITY"
    assert bytes_of(item) == SIZE


def test_targets_of_two_volumes(host: FakeHost) -> None:
    one, two = host.targets(2)
    host.export(address=one.address)
    host.export(address=two.address)
    host.handle.attach([one]).finish()
    host.handle.attach([two]).finish()
    error = host.handle.extend([one, two]).failure()
    assert error.code == "IDENTITY"
    assert "dm-0" in error.message and "dm-1" in error.message
    assert not host.passed("rescan")


def test_a_map_that_is_none_of_multipath(host: FakeHost) -> None:
    volume = host.export()
    disks = [host.add_disk(host.add_session(target), 1) for target in host.targets(2)]
    item = host.dm.make(volume.uuid, [disk.dev for disk in disks], SIZE // 512, kind="linear")
    volume.size = LARGER
    error = host.handle.extend(host.targets(2)).failure()
    assert error.code == "MAP"
    assert "linear" in error.message
    assert bytes_of(item) == SIZE


# --- paths that are down --------------------------------------------------------------------------


def test_one_path_is_down(host: FakeHost) -> None:
    """It has the old size, so it cannot stay in a longer map."""
    volume, item = attached(host)
    volume.size = LARGER
    down = disk_at(host, f"{NET}.1.2")
    host.fail("inquiry", errno.EIO, down.name, times=None)
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert down.dev not in item.members
    assert len(item.members) == 3
    states = {path.address: path.state for path in made.paths}
    assert states.pop(f"{NET}.1.2") == "FAILED"
    assert set(states.values()) == {"ACTIVE"}
    (failed,) = (path for path in made.paths if path.state == "FAILED")
    assert failed.error.code == "DEVICE"
    assert f"{NET}.1.2" in failed.error.message
    (warning,) = made.warnings
    assert down.name in warning
    assert "taken out of the map" in warning
    assert "extend again" in warning
    assert down.name not in host.passed("rescan")


def test_and_comes_back(host: FakeHost) -> None:
    """The same call takes it back."""
    volume, item = attached(host)
    volume.size = LARGER
    down = disk_at(host, f"{NET}.1.2")
    host.fail("inquiry", errno.EIO, down.name)
    host.handle.extend(host.targets(4)).finish()
    assert down.dev not in item.members
    made = host.handle.extend(host.targets(4)).finish()
    assert down.dev in item.members
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4
    assert not made.warnings
    assert (made.old_size_bytes, made.size_bytes) == (LARGER, LARGER)


def test_down_and_nothing_to_do(host: FakeHost) -> None:
    """Its size is that of the map: it stays."""
    _, item = attached(host)
    host.fail("inquiry", errno.EIO, "sda")
    made = host.handle.extend(host.targets(4)).finish()
    assert len(item.members) == 4
    assert [path.state for path in made.paths].count("FAILED") == 1
    assert "stays in the map" in made.warnings[0]


def test_rescan_fails(host: FakeHost) -> None:
    """Linux 6.8 and newer say when a device is not running."""
    volume, item = attached(host)
    volume.size = LARGER
    host.fail("rescan", errno.EAGAIN, "sdb")
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER
    assert len(item.members) == 3
    (failed,) = (path for path in made.paths if path.state == "FAILED")
    assert (failed.device, failed.error.phase) == ("sdb", "scan")


def test_capacity_cannot_be_read(host: FakeHost) -> None:
    """A path lost within the rescan: the kernel has 0 for its size then."""
    volume, item = attached(host)
    volume.size = LARGER
    disk_at(host, f"{NET}.1.2").told = 0
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert len(item.members) == 3


def test_no_path_answers(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    host.fail("inquiry", errno.EIO, times=None)
    error = host.handle.extend(host.targets(4)).failure()
    assert (error.code, error.retryable) == ("DEVICE", True)
    assert item.device in error.message
    assert bytes_of(item) == SIZE
    assert len(item.members) == 4


@pytest.mark.parametrize("point", ["inquiry", "rescan"])
def test_a_path_hangs(host: FakeHost, point: str) -> None:
    """Silently dropped: the others are not kept waiting until the end."""
    volume, item = attached(host)
    volume.size = LARGER
    gate = host.block(point, "sdb")
    with at_most(7.0):
        made = host.handle.extend(host.targets(4), timeout=30.0).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert len(item.members) == 3
    (failed,) = (path for path in made.paths if path.state == "FAILED")
    assert failed.device == "sdb"
    gate.release()


def test_every_path_hangs(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    gate = host.block("inquiry", times=None)
    with at_most(1.5):
        error = host.handle.extend(host.targets(4), timeout=1.0).failure()
    assert error.code == "DEVICE"
    assert bytes_of(item) == SIZE
    gate.release()


def test_a_member_is_gone(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    gone = disk_at(host, f"{NET}.1.2")
    with host.lock:
        host._vanish(gone)
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert gone.dev not in item.members
    assert made.path_count == 3
    assert gone.name in made.warnings[0]


def test_failed_path_in_the_map(host: FakeHost) -> None:
    """It answers, but nobody has reinstated it yet."""
    volume, item = attached(host, 2)
    item.failed.add((8, 0))
    volume.size = LARGER
    made = host.handle.extend(host.targets(2)).finish()
    assert {path.device: path.state for path in made.paths} == {"sda": "INACTIVE", "sdb": "ACTIVE"}


# --- the map ----------------------------------------------------------------------------------


def test_load_is_busy_for_a_while(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    host.fail("dm.load", errno.EBUSY, times=3)
    assert host.handle.extend(host.targets(4)).finish().size_bytes == LARGER == bytes_of(item)


@pytest.mark.parametrize("point", ["dm.load", "dm.status", "dm.deps"])
def test_a_call_of_device_mapper_fails(host: FakeHost, point: str) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    host.fail(point, errno.ENOMEM)
    error = host.handle.extend(host.targets(4)).failure()
    assert (error.code, error.errno) == ("MAP", errno.ENOMEM)
    assert bytes_of(item) == SIZE
    assert host.handle.extend(host.targets(4)).finish().size_bytes == LARGER


def test_the_swap_is_refused(host: FakeHost) -> None:
    """The kernel leaves the map suspended then, and I/O would hang: the old table goes on."""
    volume, item = attached(host)
    volume.size = LARGER

    def shrink() -> None:
        disk_at(host, f"{NET}.1.3").size = SIZE

    host.call("dm.resume", shrink)
    error = host.handle.extend(host.targets(4)).failure()
    assert (error.code, error.phase, error.errno) == ("MAP", "resize", errno.EINVAL)
    assert bytes_of(item) == SIZE
    assert len(item.members) == 4


def test_a_path_joins_in_between(host: FakeHost) -> None:
    """Nobody has proven its size: the map stays, and the next call knows of it."""
    volume, item = attached(host, 2)
    volume.size = LARGER
    (target,) = host.targets(3)[2:]
    disk = host.add_disk(host.add_session(target), 1)
    disk.size = SIZE
    (disk.folder / "block" / disk.name / "size").write_text(f"{SIZE // 512}\n")

    def join() -> None:
        assert item.active is not None
        item.active.params = f"0 0 1 1 service-time 0 3 1 8:0 1 8:16 1 8:{disk.dev[1]} 1"

    host.call("dm.deps", join)
    error = host.handle.extend(host.targets(2)).failure()
    assert error.code == "MAP"
    assert disk.name in error.message
    assert bytes_of(item) == SIZE
    with host.lock:
        host.map_changes(item)
    assert host.handle.extend(host.targets(2)).finish().path_count == 3
    assert bytes_of(item) == LARGER


def test_the_map_hangs(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    gate = host.block("dm.load")
    with at_most(1.5):
        error = host.handle.extend(host.targets(4), timeout=1.0).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "resize")
    gate.release()
    assert host.handle.extend(host.targets(4)).finish().size_bytes == LARGER == bytes_of(item)


def test_cancelled(host: FakeHost) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    gate = host.block("rescan", times=None)
    operation = host.handle.extend(host.targets(4))
    assert gate.reached()
    operation.cancel()
    error = operation.failure()
    assert (error.code, error.phase) == ("CANCELLED", "scan")
    assert bytes_of(item) == SIZE
    gate.release()


def test_closed(host: FakeHost) -> None:
    """The handle goes while paths are polled."""
    attached(host)
    handle = host.open()
    operation = handle.extend(host.targets(4), size=LARGER)
    assert until(lambda: len(host.passed("rescan")) > 8)
    handle.close()
    assert operation.failure().code == "CANCELLED"


# --- without a map --------------------------------------------------------------------------------


def test_single_path(host: FakeHost) -> None:
    volume = host.export()
    device = host.handle.attach(host.targets(3), single_path=True).finish().device
    volume.size = LARGER
    made = host.handle.extend(host.targets(3)).finish()
    assert (made.device, made.wwid) == (device, volume.wwid)
    assert (made.old_size_bytes, made.size_bytes) == (SIZE, LARGER)
    assert [path.device for path in made.paths] == [device]
    assert not host.dm.maps
    assert host.handle.extend(host.targets(3), size=LARGER).finish().old_size_bytes == LARGER


def test_single_path_shrinks(host: FakeHost) -> None:
    volume = host.export()
    host.handle.attach(host.targets(1), single_path=True).finish()
    volume.size = SIZE // 2
    error = host.handle.extend(host.targets(1)).failure()
    assert (error.code, error.retryable) == ("DEVICE", False)
    assert str(SIZE) in error.message
    assert str(SIZE // 2) in error.message


def test_single_path_is_down(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(1), single_path=True).finish()
    host.fail("inquiry", errno.EIO)
    error = host.handle.extend(host.targets(1)).failure()
    assert (error.code, error.errno) == ("DEVICE", errno.EIO)


def test_two_disks_without_a_map(host: FakeHost) -> None:
    volume = host.export()
    for target in host.targets(2):
        host.add_disk(host.add_session(target), 1)
    volume.size = LARGER
    made = host.handle.extend(host.targets(2)).finish()
    assert made.size_bytes == LARGER
    assert made.path_count == 2


def test_two_disks_that_are_not_one(host: FakeHost) -> None:
    for target in host.targets(2):
        host.export(address=target.address)
        host.add_disk(host.add_session(target), 1)
    assert host.handle.extend(host.targets(2)).failure().code == "IDENTITY"


# --- not attached ---------------------------------------------------------------------------------


def test_not_attached(host: FakeHost) -> None:
    error = host.handle.extend(host.targets(2)).failure()
    assert (error.code, error.phase, error.retryable) == ("SESSION", "prepare", False)
    assert "attach it" in error.message
    assert not host.iscsid.requests


def test_session_without_the_disk(host: FakeHost) -> None:
    host.add_session(host.targets()[0])
    error = host.handle.extend(host.targets()).failure()
    assert (error.code, error.phase, error.retryable) == ("DEVICE", "prepare", False)
    assert "attach it" in error.message


def test_no_daemon_is_needed(host: FakeHost) -> None:
    """Neither iscsid nor a portal."""
    volume, item = attached(host)
    host.iscsid.stop()
    volume.size = LARGER
    host.handle.extend(host.targets(4)).finish()
    assert bytes_of(item) == LARGER
    host.iscsid.start()


def test_bad_request(host: FakeHost) -> None:
    with pytest.raises(Failure, match="targets"):
        host.handle.extend([])
    with pytest.raises(Failure, match="timeout"):
        host.handle.extend(host.targets(1), timeout=0)
    with pytest.raises(Failure, match="numeric"):
        host.handle.extend([Target("storage.example", 3260, IQN, 1)])


# --- with multipathd ------------------------------------------------------------------------------


def test_through_multipathd(host: FakeHost, daemon: FakeMultipathd) -> None:
    """It owns the table: we load none."""
    volume, item = attached(host)
    volume.size = LARGER
    made = host.handle.extend(host.targets(4)).finish()
    assert made.multipathd_running
    assert made.size_bytes == LARGER == bytes_of(item)
    assert daemon.commands == [f"resize map {item.device}"]
    assert not host.passed("dm.load")
    assert not made.warnings


@pytest.mark.parametrize("answer", ["timeout\n", "fail\n", "fail\ntimeout\n", "ok\n"])
def test_multipathd_does_it_the_second_time(
    host: FakeHost, daemon: FakeMultipathd, answer: str
) -> None:
    """Too busy, map not taken over yet, or it saw the old size."""
    volume, item = attached(host)
    volume.size = LARGER
    daemon.script("resize map", answer)
    with at_most(2.0):
        made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert daemon.commands == [f"resize map {item.device}"] * 2


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("fail\n", "refuses"),
        ("timeout\n", "too busy"),
        ("ok\n", "says that it did"),
        ("fail\ndevice not found\n", "does not know"),
    ],
)
def test_multipathd_never_does_it(
    host: FakeHost, daemon: FakeMultipathd, answer: str, word: str
) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    daemon.script("resize map", *[answer] * 20)
    with at_most(2.5):
        error = host.handle.extend(host.targets(4), timeout=2.0).failure()
    assert (error.code, error.phase, error.retryable) == ("MAP", "resize", True)
    assert word in error.message
    assert bytes_of(item) == SIZE
    assert not host.passed("dm.load")


def test_multipathd_is_silent(host: FakeHost, daemon: FakeMultipathd) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    gate = threading.Event()
    daemon._answer = lambda _: "ok\n" if gate.wait(5.0) else ""  # type: ignore[method-assign]
    with at_most(1.5):
        error = host.handle.extend(host.targets(4), timeout=1.0).failure()
    gate.set()
    assert error.code in ("MAP", "TIMEOUT")
    assert error.phase == "resize"
    assert bytes_of(item) == SIZE


def test_multipathd_ends_meanwhile(host: FakeHost, daemon: FakeMultipathd) -> None:
    """Then the table is ours."""
    volume, item = attached(host)
    volume.size = LARGER
    daemon.script("resize map", *["fail\n"] * 20)
    operation = host.handle.extend(host.targets(4))
    assert until(lambda: daemon.commands)
    daemon.stop()
    made = operation.finish()
    assert not made.multipathd_running
    assert made.size_bytes == LARGER == bytes_of(item)


def test_multipathd_was_quicker(host: FakeHost, daemon: FakeMultipathd) -> None:
    """auto_resize of multipath.conf: nothing is left to be asked for."""
    volume, item = attached(host, 2)
    volume.size = LARGER

    def resize() -> None:
        with host.lock:
            for disk in host.disks.values():
                disk.size = LARGER
                (disk.folder / "block" / disk.name / "size").write_text(f"{LARGER // 512}\n")
            daemon._resize_map(item.device)

    host.call("dm.info", resize)
    made = host.handle.extend(host.targets(2)).finish()
    assert (made.old_size_bytes, made.size_bytes) == (SIZE, LARGER)
    assert not daemon.commands


def test_one_path_is_down_under_multipathd(host: FakeHost, daemon: FakeMultipathd) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    down = disk_at(host, f"{NET}.1.2")
    host.fail("inquiry", errno.EIO, down.name, times=2)
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert daemon.commands == [f"del path {down.name}", f"resize map {item.device}"]
    assert len(item.members) == 3
    assert "taken out of the map" in made.warnings[0]

    made = host.handle.extend(host.targets(4)).finish()  # once more, and it is still down
    assert "is not in the map" in made.warnings[0]
    assert len(item.members) == 3

    made = host.handle.extend(host.targets(4)).finish()
    assert daemon.commands[-1] == f"add path {down.name}"
    assert len(item.members) == 4
    assert [path.state for path in made.paths] == ["ACTIVE"] * 4
    assert not host.passed("dm.load")


def test_removed_for_nothing_is_told(host: FakeHost, daemon: FakeMultipathd) -> None:
    volume, item = attached(host)
    volume.size = LARGER
    host.fail("inquiry", errno.EIO, "sdb")
    daemon.script("resize map", *["fail\n"] * 20)
    error = host.handle.extend(host.targets(4), timeout=1.5).failure()
    assert "were taken out" in error.message
    assert len(item.members) == 3
    daemon.forget_script()
    made = host.handle.extend(host.targets(4)).finish()
    assert made.size_bytes == LARGER == bytes_of(item)
    assert len(item.members) == 4


def test_a_path_is_not_taken_back(host: FakeHost, daemon: FakeMultipathd) -> None:
    """The volume is as large as it should be; the path is told."""
    volume, item = attached(host)
    volume.size = LARGER
    host.fail("inquiry", errno.EIO, "sdb")
    host.handle.extend(host.targets(4)).finish()
    daemon.script("add path", *["fail\n"] * 20)
    began = time.monotonic()
    made = host.handle.extend(host.targets(4), timeout=2.0).finish()
    assert time.monotonic() - began < 3.0
    assert made.size_bytes == LARGER
    assert len(item.members) == 3
    (failed,) = (path for path in made.paths if path.state == "FAILED")
    assert (failed.device, failed.error.code) == ("sdb", "MAP")
    assert "is not in the map" in made.warnings[0]


def test_time_is_over_while_it_is_asked_once_more(host: FakeHost) -> None:
    """The storage is not extended: not the same as a path that is down."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    gates = [host.block("rescan", f"sd{letter}") for letter in "ab"]
    operation = host.handle.extend(host.targets(2), timeout=2.0, size=2 * SIZE)
    for gate in gates:
        assert gate.reached()
        gate.release()
    late = host.block("rescan", "sda", times=None)
    error = operation.failure()
    late.release()
    assert error.code == "DEVICE"
    assert "is the volume extended on the storage?" in error.message


def test_a_map_that_cannot_be_read(host: FakeHost) -> None:
    """It is there, so it is not the disk below it that is extended."""
    volume, item = attached(host, 2)
    volume.size = LARGER
    for part, number, code in (
        ("dm/uuid", errno.EMFILE, "SYSTEM"),
        ("holders", errno.EMFILE, "SYSTEM"),
        ("dm/uuid", errno.EIO, "MAP"),  # as of one that is just being removed
    ):
        with host.denied(part, number):
            error = host.handle.extend(host.targets(2)).failure()
        assert (error.code, error.phase) == (code, "prepare"), part
        assert not host.passed("rescan")
    assert host.handle.extend(host.targets(2)).finish().device == item.device
    assert bytes_of(item) == LARGER


def test_a_map_made_since_the_disks_were_found(host: FakeHost) -> None:
    """By another process, which let go of the lock before it was asked for."""
    volume = host.export()
    targets = host.targets(1)
    device = host.handle.attach(targets, single_path=True).finish().device
    volume.size = LARGER
    page = host.disks[device].folder / "vpd_pg83"
    text = page.read_bytes()
    page.unlink()
    os.mkfifo(page)
    extend = host.handle.extend(targets)
    with page.open("wb") as file:  # now the library reads it, after it looked for a map
        item = host.dm.make(volume.uuid, [host.disks[device].dev], SIZE // 512)
        page.unlink()
        page.write_bytes(text)
        file.write(text)
    made = extend.finish()
    assert (made.device, made.size_bytes) == (item.device, LARGER)
    assert bytes_of(item) == LARGER
