"""Who heals a map's paths: without multipathd the process that attached it, with it multipathd."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import manypath
from lab import Export, Iscsid, Lab, Volume, dm, wait_until
from lab.blockdev import pattern, read_direct, write_direct
from lab.network import How
from steps import MIB, assert_right_map, attach, detach, disks, mark

RECOVERY = 1  # seconds a session may be away before its I/O fails; 5 s would only cost time here
SOON = 8.0  # seconds: the monitor looks again after 1, 2, 4 and 5 s
LOST = 60.0  # seconds until a cut is noticed, by NOPs of 5 + 5 s
STILL = 4.0  # seconds in which the monitor would have looked, had it not kept still

Record = Callable[[str, object], None]


@pytest.fixture
def told(record_property: Record, capsys: pytest.CaptureFixture[str]) -> Record:
    """Prints a figure, and keeps it with the results."""

    def tell(name: str, value: object) -> None:
        record_property(name, value)
        with capsys.disabled():
            print(f"\n{name}: {value}")

    return tell


def offer(lab: Lab, paths: int = 2) -> tuple[Volume, Export]:
    volume = lab.volume()
    mark(volume)
    return volume, lab.export(volume, lab.portals(paths))


def fail_soon(lab: Lab) -> None:
    """Have I/O through a session that is away fail quickly."""
    for session in lab.snapshot().sessions:
        Path(f"/sys/class/iscsi_session/session{session.sid}/recovery_tmo").write_text(
            str(RECOVERY)
        )


@contextmanager
def io(device: str) -> Iterator[list[str]]:
    """Write and read back all the time; yields what went wrong."""
    problems: list[str] = []
    over = threading.Event()

    def work() -> None:
        for turn in range(1 << 30):
            if over.is_set():
                return
            data = pattern(f"turn {turn}", 64 * 1024)
            try:
                write_direct(device, data, offset=MIB)
                if read_direct(device, offset=MIB, length=len(data)) != data:
                    problems.append(f"wrong bytes in turn {turn}")
            except OSError as error:
                problems.append(f"{error} in turn {turn}")
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield problems
    finally:
        over.set()
        thread.join()


def running(lab: Lab, disk: str) -> bool:
    return any(
        (device.name, device.state) == (disk, "running") for device in lab.snapshot().devices
    )


def fail_path(volume: Volume, disk: str) -> None:
    """As if I/O had failed; it may be taken back at once."""
    dm.message(volume.wwid, f"fail_path {dm.number_of(disk)}")


@pytest.mark.parametrize("how", ["reject", "drop"])
def test_a_path_is_taken_back_when_its_portal_is(
    lab: Lab, iscsid: Iscsid, how: How, told: Record
) -> None:
    volume, export = offer(lab)
    attachment = attach(export.properties)
    assert any("multipathd" in warning for warning in attachment.warnings)
    fail_soon(lab)
    lost = attachment.paths[0].device
    assert lost is not None
    with io(attachment.path) as problems:
        lab.cut(export.portals[0], how)
        wait_until(lambda: dm.failed(volume.wwid) == {lost}, "the kernel fails the path", LOST)
        lab.heal()
        wait_until(lambda: running(lab, lost), "the session is back", LOST)
        begun = time.monotonic()
        wait_until(lambda: not dm.failed(volume.wwid), "the path is taken back", 2 * SOON)
        told(f"{how}: seconds from the session's return to the path's", f"{seconds(begun):.2f}")
        assert seconds(begun) < SOON
    assert problems == []
    detach(lab, export.properties)


def seconds(since: float) -> float:
    return time.monotonic() - since


def test_a_path_that_failed_and_is_well(lab: Lab, iscsid: Iscsid, told: Record) -> None:
    """No session went, so nothing but the kernel's word on the path tells of it."""
    volume, export = offer(lab)
    attachment = attach(export.properties)
    disk = attachment.paths[1].device
    assert disk is not None
    fail_path(volume, disk)
    begun = time.monotonic()
    number = dm.number_of(disk)

    def taken_back() -> bool:
        return any(f"Reinstating path {number}." in line for line in lab.klog())

    wait_until(taken_back, "the path is taken back", SOON)
    told("seconds until a failed path that is well is taken back", f"{seconds(begun):.2f}")
    assert not dm.failed(volume.wwid)
    detach(lab, export.properties)


def test_a_path_that_is_another_volume_now_stays_failed(lab: Lab, iscsid: Iscsid) -> None:
    volume, export = offer(lab)
    attachment = attach(export.properties)
    disk = attachment.paths[1].device
    assert disk is not None
    lab.settle()
    export.swap(1, lab.volume(), target=1)
    fail_path(volume, disk)
    time.sleep(STILL)  # for something that must not happen there is no event
    assert dm.failed(volume.wwid) == {disk}
    export.swap(1, volume, target=1)
    wait_until(lambda: not dm.failed(volume.wwid), "the path is taken back", SOON)
    detach(lab, export.properties)


def test_a_member_that_was_deleted_is_replaced(lab: Lab, iscsid: Iscsid) -> None:
    """The map keeps a disk that is gone, and no table with it loads."""
    volume, export = offer(lab)
    attachment = attach(export.properties)
    lost = attachment.paths[0].device
    assert lost is not None
    Path(f"/sys/block/{lost}/device/delete").write_text("1")
    again = attach(export.properties)
    assert again.path == attachment.path
    assert_right_map(lab, volume, Path(again.path).name, disks(again))
    detach(lab, export.properties)


def test_it_keeps_still_while_multipathd_runs_and_takes_over_when_it_is_killed(
    lab: Lab, iscsid: Iscsid, told: Record
) -> None:
    """multipathd is held by SIGSTOP, so that it is not the one that heals."""
    volume, export = offer(lab)
    attachment = attach(export.properties)
    disk = attachment.paths[1].device
    assert disk is not None
    lab.multipathd.start()
    lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    lab.settle()
    lab.multipathd.pause()
    fail_path(volume, disk)
    time.sleep(STILL)  # for something that must not happen there is no event
    assert dm.failed(volume.wwid) == {disk}, "healed beside multipathd"
    lab.multipathd.kill()
    begun = time.monotonic()
    wait_until(lambda: not dm.failed(volume.wwid), "the path is taken back", SOON)
    told("seconds from the end of multipathd to the path's return", f"{seconds(begun):.2f}")
    detach(lab, export.properties)


def test_no_map_queues_for_ever_when_multipathd_is_killed(
    lab: Lab, iscsid: Iscsid, told: Record
) -> None:
    """It has made the map queue: without it, I/O must end when the last path is gone."""
    volume, export = offer(lab)
    lab.multipathd.configure(extra='overrides {\n    no_path_retry "queue"\n}\n')
    lab.multipathd.start()
    attachment = attach(export.properties)
    lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    wait_until(lambda: dm.table(volume.wwid).queues, "multipathd has the map queue")
    fail_soon(lab)
    lab.multipathd.kill()
    for portal in export.portals:
        lab.cut(portal)
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_direct, attachment.path, pattern("nobody", MIB))
        try:
            with pytest.raises(OSError, match="Input/output error"):
                writing.result(LOST)
        finally:
            dm.message(volume.wwid, "fail_if_no_path")  # or the guest hangs
    told("seconds until I/O without a path ended", f"{seconds(begun):.2f}")
    assert not dm.table(volume.wwid).queues
    lab.heal()
    wait_until(lambda: not dm.failed(volume.wwid), "the paths are taken back", LOST)
    detach(lab, export.properties)


# --- ALUA -----------------------------------------------------------------------------------


def groups(lab: Lab, attachment: manypath.Attachment, *members: range) -> list[frozenset[str]]:
    """The disks of these paths, by their numbers."""
    names = [path.device or "" for path in attachment.paths]
    return [frozenset(names[index] for index in each) for each in members]


@pytest.mark.parametrize("state", ["non-optimized", "standby"])
def test_the_first_table_has_the_groups_that_the_storage_tells(
    lab: Lab, iscsid: Iscsid, state: str
) -> None:
    """Sorted: the worse ones are asked first, and their disks may come first."""
    volume, export = offer(lab, paths=4)
    export.set_access_state("optimized", 2, 3)
    export.set_access_state("standby" if state == "standby" else "non-optimized", 0, 1)
    attachment = attach(export.properties)
    table = dm.table(volume.wwid)
    assert list(table.groups) == groups(lab, attachment, range(2, 4), range(2))
    assert table.handler == ("alua",)
    assert not table.queues
    with io(attachment.path) as problems:
        used = wait_until(
            lambda: [group for group in dm.status(volume.wwid) if group.letter == "A"],
            "a group is in use",
        )
    assert problems == []
    assert used[0].disks == table.groups[0]
    detach(lab, export.properties)


@pytest.mark.parametrize("cause", ["its path failed", "it was standby"])
def test_failback(lab: Lab, iscsid: Iscsid, cause: str, told: Record) -> None:
    """The best group is used again when it can be; the kernel does not see to it."""
    volume, export = offer(lab)
    export.set_access_state("optimized", 0)
    export.set_access_state("non-optimized", 1)
    attachment = attach(export.properties)
    best, other = groups(lab, attachment, range(1), range(1, 2))
    assert list(dm.table(volume.wwid).groups) == [best, other]
    fail_soon(lab)

    def in_use() -> frozenset[str] | None:
        return next((g.disks for g in dm.status(volume.wwid) if g.letter == "A"), None)

    with io(attachment.path) as problems:
        wait_until(lambda: in_use() == best, "the best group is in use")
        if cause == "it was standby":
            export.set_access_state("standby", 0)
        else:
            lab.cut(export.portals[0])
        wait_until(lambda: in_use() == other, "the other group is in use", LOST)
        export.set_access_state("optimized", 0)
        lab.heal()
        wait_until(lambda: running(lab, next(iter(best))), "its session is there", LOST)
        begun = time.monotonic()
        wait_until(lambda: in_use() == best, "the best group is in use again", 2 * SOON)
        told(f"seconds until failback after {cause}", f"{seconds(begun):.2f}")
    assert problems == []
    detach(lab, export.properties)
