# SPDX-License-Identifier: Apache-2.0
"""Maps made and joined: groups, sizes, queueing, and others who make them too."""

from __future__ import annotations

import errno
import threading
import time

import pytest

from fake.dm import Map, Table
from fake.host import SIZE, FakeHost, Volume, at_most, until
from fake.multipathd import FakeMultipathd

SECTORS = SIZE // 512


def groups(host: FakeHost, item: Map) -> list[list[str]]:
    """By the last byte of the portals."""
    assert item.active is not None
    names = {disk.dev: disk.session.address.rsplit(".", 1)[1] for disk in host.disks.values()}
    return [sorted(names[dev] for dev in group) for group in item.active.groups]


def only_map(host: FakeHost) -> Map:
    (item,) = host.dm.maps.values()
    assert not item.suspended
    return item


def attached(host: FakeHost, count: int) -> tuple[Volume, Map]:
    volume = host.export()
    host.handle.attach(host.targets(count)).finish()
    return volume, only_map(host)


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({1: 0x00, 2: 0x00, 3: 0x00, 4: 0x00}, [["1", "2", "3", "4"]]),
        ({1: 0x01, 2: 0x00, 3: 0x01, 4: 0x00}, [["2", "4"], ["1", "3"]]),
        ({1: 0x02, 2: 0x0F, 3: 0x01, 4: 0x00}, [["4"], ["3"], ["1"], ["2"]]),
        ({1: 0x81, 2: 0x00, 3: 0x01, 4: 0x03}, [["1"], ["2"], ["3"], ["4"]]),
    ],
)
def test_a_table_of_ours_follows_alua(
    host: FakeHost, states: dict[int, int], expected: list[list[str]]
) -> None:
    """Right after the scan sysfs says "active/optimized" of all of them."""
    host.alua = states
    _, item = attached(host, 4)
    assert groups(host, item) == expected
    assert item.active is not None
    assert item.active.params.startswith(f"0 1 alua {len(expected)} 1 service-time 0 ")
    assert len(host.passed("port_groups")) == 1  # it tells about all groups


def test_a_target_without_the_extended_header(host: FakeHost) -> None:
    host.alua = {1: 0x01, 2: 0x00}
    refuse = lambda: -errno.EOPNOTSUPP  # noqa: E731
    for name in ("sda", "sdb"):
        host.call("port_groups", refuse, f"{name} extended", times=None)
    _, item = attached(host, 2)
    assert groups(host, item) == [["2"], ["1"]]


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT])
def test_a_target_that_does_not_tell(host: FakeHost, number: int) -> None:
    """Then sysfs does; a target that hangs is asked once."""
    host.alua = {1: 0x01, 2: 0x00}
    host.fail("port_groups", number, times=None)

    def state() -> None:
        for disk in host.disks.values():
            word = "standby" if disk.session.address.endswith("1") else "active/optimized"
            (disk.folder / "access_state").write_text(f"{word}\n")

    host.call("dm.info", state)
    _, item = attached(host, 2)
    assert groups(host, item) == [["2"], ["1"]]
    if number == errno.ETIMEDOUT:
        assert len(host.passed("port_groups")) == 1


def test_nothing_is_asked_where_multipathd_makes_the_table(host: FakeHost) -> None:
    host.alua = {1: 0x01, 2: 0x00}
    with FakeMultipathd(host):
        _, item = attached(host, 2)
    assert groups(host, item) == [["1", "2"]]
    assert not host.passed("port_groups")
    assert len(host.passed("inquiry")) == 2


def test_a_path_joins_the_group_of_its_like(host: FakeHost) -> None:
    host.alua = {1: 0x00, 2: 0x01, 3: 0x00, 4: 0x02}
    attached(host, 2)
    for disk in host.disks.values():
        best = disk.session.address.endswith("1")
        word = "active/optimized" if best else "active/non-optimized"
        (disk.folder / "access_state").write_text(f"{word}\n")
    host.handle.attach(host.targets(4)).finish()
    assert groups(host, only_map(host)) == [["1", "3"], ["2"], ["4"]]


def test_the_words_of_a_table_stay(host: FakeHost) -> None:
    """What a multipathd that is gone had made of it."""
    _, item = attached(host, 2)
    params = "2 pg_init_retries 50 1 alua 1 1 queue-length 0 2 1 8:0 7 8:16 7"
    item.active = Table("multipath", params, SECTORS)
    host.handle.attach(host.targets(3)).finish()
    assert only_map(host).active == Table(
        "multipath",
        "2 pg_init_retries 50 1 alua 1 1 queue-length 0 3 1 8:0 7 8:16 7 8:32 7",
        SECTORS,
    )


def test_members_that_do_not_answer_stay(host: FakeHost) -> None:
    attached(host, 2)
    host.fail("inquiry", errno.EIO, "sda", times=None)
    made = host.handle.attach(host.targets(3)).finish()
    assert len(only_map(host).members) == 3
    assert [path.state for path in made.paths].count("ACTIVE") == 2


@pytest.mark.parametrize("gone", [["1"], ["1", "2"]])
def test_members_whose_disk_is_gone_leave(host: FakeHost, gone: list[str]) -> None:
    """Deleted by somebody: a table with them does not load. What is there again joins."""
    attached(host, 2)
    with host.lock:
        for disk in list(host.disks.values()):
            if disk.session.address.rsplit(".", 1)[1] in gone:
                host._vanish(disk)
    made = host.handle.attach(host.targets(3)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE"] * 3
    assert groups(host, only_map(host)) == [["1", "2", "3"]]


@pytest.mark.parametrize(("word", "flags"), [("yes", 0x260), ("no", 0x60)])
def test_partitions_that_multipathd_does_not_want(host: FakeHost, word: str, flags: int) -> None:
    """udev, which maps them, is told with the map."""
    with FakeMultipathd(host) as daemon:
        daemon.config = f'defaults {{\n\tskip_kpartx "{word}"\n}}\n'
        _, item = attached(host, 2)
    assert item.udev_flags == flags


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("size", [SIZE // 2, SIZE * 2])
def test_a_join_never_changes_the_size(host: FakeHost, size: int, running: bool) -> None:
    """The volume was resized behind our back, and new paths tell it first."""
    volume, item = attached(host, 1)
    volume.size = size
    (disk,) = host.disks.values()
    if running:
        daemon = FakeMultipathd(host).__enter__()
    with at_most(2.0):
        error = host.handle.attach(host.targets(4)[1:]).failure()
    if running:
        daemon.stop()
    assert (error.code, error.phase, error.retryable) == ("MAP", "map", False)
    assert f"has {SIZE} bytes and the volume {size}" in error.message
    assert item.active is not None
    assert (item.active.sectors, item.members) == (SECTORS, [disk.dev])
    assert until(lambda: len(host.disks) == 1)


@pytest.mark.parametrize("size", [SIZE // 2, SIZE * 2])
def test_paths_of_another_size_are_kept_out(host: FakeHost, size: int) -> None:
    """One in the map was rescanned by somebody, the map was not resized."""
    volume, item = attached(host, 1)
    volume.size = size
    (disk,) = host.disks.values()
    host._read_capacity(disk)
    made = host.handle.attach(host.targets(3)).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "FAILED"]
    assert "kept out, extend the volume first" in made.paths[1].error.message
    assert any(f"the map has {SIZE} bytes and its paths have {size}" in t for t in made.warnings)
    assert item.active is not None
    assert (item.active.sectors, item.members) == (SECTORS, [disk.dev])
    assert until(lambda: len(host.disks) == 1)


# --- queueing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_a_map_is_not_left_queueing(host: FakeHost, count: int) -> None:
    _, item = attached(host, 2)
    assert item.active is not None
    item.active.params = item.active.params.replace("0 1 alua", "1 queue_if_no_path 1 alua")
    made = host.handle.attach(host.targets(count)).finish()
    assert host.dm.messages == ["fail_if_no_path"]
    assert item.active.features == []
    assert any("queued I/O without end" in text for text in made.warnings)


def test_with_multipathd_queueing_is_its_business(host: FakeHost) -> None:
    _, item = attached(host, 2)
    assert item.active is not None
    item.active.params = item.active.params.replace("0 1 alua", "1 queue_if_no_path 1 alua")
    with FakeMultipathd(host):
        made = host.handle.attach(host.targets(2)).finish()
    assert not host.dm.messages
    assert not made.warnings


# --- others ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["dm.load", "dm.resume"])
def test_an_empty_map_of_ours_is_taken_away(host: FakeHost, point: str) -> None:
    """By a multipathd in whose way it was."""
    volume = host.export()

    def take_away() -> int:
        with host.lock:
            host.dm._remove(host.dm.maps[volume.uuid])
        return -errno.ENXIO

    host.call(point, take_away, times=2)
    made = host.handle.attach(host.targets(2)).finish()
    assert only_map(host).device == made.device
    assert len(host.passed("dm.create")) == 3


def test_taken_away_again_and_again(host: FakeHost) -> None:
    volume = host.export()

    def take_away() -> int:
        with host.lock:
            host.dm._remove(host.dm.maps[volume.uuid])
        return -errno.ENXIO

    host.call("dm.load", take_away, times=None)
    error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.phase, error.retryable) == ("MAP", "map", True)
    assert "came and went 5 times" in error.message
    assert until(lambda: host.clean)


def test_the_map_goes_while_it_is_joined(host: FakeHost) -> None:
    _, item = attached(host, 2)

    def take_away() -> None:
        with host.lock:
            host.dm._remove(item)

    host.call("dm.deps", take_away)
    made = host.handle.attach(host.targets(2)).finish()
    assert only_map(host) is not item
    assert only_map(host).device == made.device


def test_made_by_somebody_at_the_same_moment(host: FakeHost) -> None:
    volume = host.export()

    def make() -> int:
        host.dm.make(volume.uuid, [disk.dev for disk in host.disks.values()], SECTORS)
        return 0

    host.call("dm.create", make)
    made = host.handle.attach(host.targets(2)).finish()
    assert made.map_was_there
    assert len(host.passed("dm.create")) == 1


def test_both_names_are_taken(host: FakeHost) -> None:
    volume = host.export()
    host.dm.make("mpath-x", [], 8, name=volume.wwid)
    host.dm.make("mpath-y", [], 8, name=volume.uuid)
    error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.phase) == ("MAP", "map")
    assert "belong to other maps" in error.message


def test_an_empty_map_of_ours_is_filled(host: FakeHost) -> None:
    """By a multipathd; our load comes too late."""
    volume = host.export()

    def fill() -> int:
        with host.lock:
            item = host.dm.maps[volume.uuid]
            devs = [disk.dev for disk in host.disks.values()]
            paths = "".join(f" {major}:{minor} 1" for major, minor in devs)
            params = f"0 1 alua 1 1 service-time 0 {len(devs)} 1{paths}"
            item.active = Table("multipath", params, SECTORS)
            host.map_changes(item)
        return -errno.EINVAL

    host.call("dm.load", fill)
    assert host.handle.attach(host.targets(2)).finish().map_was_there
    assert not host.passed("dm.remove")


def test_a_suspended_map_is_resumed(host: FakeHost) -> None:
    """Left by a crash; I/O to it would hang."""
    _, item = attached(host, 2)
    item.suspended = True
    host.handle.attach(host.targets(2)).finish()
    assert not only_map(host).suspended


def test_the_marker_of_a_failure_goes(host: FakeHost) -> None:
    volume = host.export()
    folder = host.run / "multipath" / "failed_wwids"
    folder.mkdir(parents=True)
    (folder / volume.wwid).touch()
    (folder / "other").touch()
    host.handle.attach(host.targets(1)).finish()
    assert [path.name for path in folder.iterdir()] == ["other"]


# --- multipathd comes and goes --------------------------------------------------------------------


def test_multipathd_dies_while_it_is_waited_for(host: FakeHost) -> None:
    _, item = attached(host, 1)
    with FakeMultipathd(host) as daemon:
        daemon.script("add path", *["fail\n"] * 9)
        operation = host.handle.attach(host.targets(2))
        assert until(lambda: "add path sdb" in daemon.commands)
        assert len(item.members) == 1
        daemon.stop()
        made = operation.finish()
    assert len(item.members) == 2
    assert not made.multipathd_running
    assert [path.state for path in made.paths] == ["ACTIVE"] * 2


def test_multipathd_comes_before_our_load(host: FakeHost) -> None:
    """Then the table is its own."""
    _, item = attached(host, 1)
    daemon = FakeMultipathd(host)
    host.call("dm.deps", daemon.__enter__)
    made = host.handle.attach(host.targets(2)).finish()
    daemon.stop()
    assert made.multipathd_running
    assert len(item.members) == 2
    assert len(host.passed("dm.load")) in (1, 2)


def test_multipathd_takes_no_path_in_time(host: FakeHost) -> None:
    attached(host, 1)
    with FakeMultipathd(host) as daemon:
        daemon.script("add path", *["fail\n"] * 99)
        with at_most(2.5):
            error = host.handle.attach(host.targets(2), timeout=2.0).failure()
    assert (error.code, error.phase) == ("MAP", "map")
    assert "did not take 1 of our paths" in error.message


def test_a_path_that_somebody_takes_before_it_joins(host: FakeHost) -> None:
    """The others are in use as well: by the map."""
    attached(host, 2)

    def take() -> None:
        host.disks["sdc"].claimed = True

    host.call("dm.load", take)
    error = host.handle.attach(host.targets(3)).failure()
    assert (error.code, error.phase) == ("IN_USE", "map")
    assert "path sdc is in use: " in error.message


def test_a_disk_that_goes_before_it_joins(host: FakeHost) -> None:
    """Deleted by somebody; without it the table would load again and again."""
    _, item = attached(host, 1)

    def vanish() -> None:
        with host.lock:
            host._vanish(host.disks["sdb"])

    host.calls.clear()
    host.call("dm.deps", vanish)
    error = host.handle.attach(host.targets(2), timeout=2.0).failure()
    assert (error.code, error.phase, error.retryable) == ("MAP", "map", True)
    assert "a path of ours went" in error.message
    assert not host.passed("dm.load")
    assert len(item.members) == 1


# --- the blacklist --------------------------------------------------------------------------------


def blacklist(rule: str, exception: str = "") -> str:
    return f"blacklist {{\n\t{rule}\n}}\nblacklist_exceptions {{\n\t{exception}\n}}\n"


@pytest.mark.parametrize(
    "rule",
    [
        'wwid "^36001405"',
        'devnode "^sd"',
        'protocol "scsi:iscsi"',
        'device {\n\t\tvendor ".*"\n\t}',
    ],
)
def test_a_volume_that_multipathd_leaves_alone(host: FakeHost, rule: str) -> None:
    host.export()
    with FakeMultipathd(host) as daemon:
        daemon.config = blacklist(rule)
        error = host.handle.attach(host.targets(2)).failure()
    assert (error.code, error.phase, error.retryable) == ("MAP", "map", False)
    assert " ".join(rule.split()) in error.message
    assert "blacklist_exceptions" in error.message
    assert not host.passed("dm.create")
    assert until(lambda: host.clean)


@pytest.mark.parametrize(
    "config",
    [
        blacklist('wwid "^36001406"'),
        blacklist('wwid ".*"', 'wwid "^36001405"'),
        blacklist('devnode "^sda$"'),  # the other path is enough for the map to stay
        "nonsense {",
    ],
)
def test_a_volume_that_multipathd_takes(host: FakeHost, config: str) -> None:
    host.export()
    with FakeMultipathd(host) as daemon:
        daemon.config = config
        host.handle.attach(host.targets(2)).finish()
    assert daemon.shown == 1


def test_a_map_that_is_there_is_joined_all_the_same(host: FakeHost) -> None:
    attached(host, 2)
    with FakeMultipathd(host) as daemon:
        daemon.config = blacklist('wwid ".*"')
        assert host.handle.attach(host.targets(2)).finish().map_was_there


def test_without_multipathd_nobody_is_asked(host: FakeHost) -> None:
    host.export()
    daemon = FakeMultipathd(host)
    with daemon:
        pass
    host.handle.attach(host.targets(2)).finish()
    assert daemon.shown == 0


def test_a_single_path_has_no_map(host: FakeHost) -> None:
    host.export()
    with FakeMultipathd(host) as daemon:
        daemon.config = blacklist('wwid ".*"')
        host.handle.attach(host.targets(1), single_path=True).finish()
    assert daemon.shown == 0


@pytest.mark.parametrize("answer", ["timeout\n", "fail\n", "ok\n"])
def test_multipathd_does_not_tell(host: FakeHost, answer: str) -> None:
    host.export()
    with FakeMultipathd(host) as daemon:
        daemon.script("show config", answer)
        host.handle.attach(host.targets(2)).finish()
    assert any("does not tell its configuration" in text for text in host.handle.log)


def test_multipathd_is_busy(host: FakeHost) -> None:
    """For longer than a second: the attach goes on."""
    host.export()
    busy = threading.Event()
    with FakeMultipathd(host) as daemon:
        daemon._answer = lambda _: "ok\n" if busy.wait(20.0) else ""  # type: ignore[method-assign]
        begin = time.monotonic()
        host.handle.attach(host.targets(2)).finish()
        assert 0.9 < time.monotonic() - begin < 2.5
        busy.set()
    assert any("does not tell its configuration" in text for text in host.handle.log)


def test_cancelled_while_multipathd_is_asked(host: FakeHost) -> None:
    host.export()
    busy = threading.Event()
    with FakeMultipathd(host) as daemon:
        daemon._answer = lambda _: "ok\n" if busy.wait(20.0) else ""  # type: ignore[method-assign]
        operation = host.handle.attach(host.targets(2))
        assert until(lambda: len(host.passed("inquiry")) == 2)
        operation.cancel()
        assert operation.failure().code == "CANCELLED"
        busy.set()
    assert until(lambda: host.clean)
