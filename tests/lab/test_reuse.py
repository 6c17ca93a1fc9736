"""A LUN number that was given to another volume while the old one's disks stayed on this host.

The shape of CVE-2023-2088: whoever takes the disks that are there for the volume asked for hands
one tenant's data to another. Every volume is marked with its name, at the storage; what is read
through the device that an attach returns, and through each of its paths, must be the new volume's.
"""

from __future__ import annotations

import collections
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import manypath
from lab import Export, Iscsid, Lab, Multipathd, Snapshot, Volume, leaks, run, wait_until
from lab.blockdev import device_path, pattern, write_direct
from lab.marks import is_untouched, mark, shown_by
from manypath import PathState
from manypath.errors import IdentityError, InUseError, LunNotFoundError, ManypathError

ROUNDS = int(os.environ.get("LAB_ROUNDS_REUSE", "8"))  # in both modes together; `make soak`: 100
SEED = int(os.environ.get("LAB_SEED", "2023"))
TIMEOUT = 60.0
MIB = 1 << 20
SIZE = 16  # MiB of a volume that is not said to be larger or smaller
PATHS = 4
LUN = 1

Remains = Literal["disks", "map", "open map"]
Note = Callable[[str, object], None]


@dataclass(frozen=True)
class Round:
    """One swap behind the host's back."""

    remains: Remains  # of the old volume on this host
    size: int = SIZE  # of the new volume, in MiB
    swapped: int = PATHS  # paths that lead to the new volume; the others still to the old one
    offline: bool = False  # the old disks were set offline
    udev_stopped: bool = False  # udev's database knows the old volume only
    expected: bool = False  # the caller says which volume it wants


def sample(count: int, seed: str) -> Iterator[Round]:
    """Each kind in turn, the rest by chance."""
    rng = random.Random(seed)
    for number in range(count):
        remains: Remains = ("disks", "map", "open map", rng.choice(("disks", "map")))[number % 4]
        some = number % 4 == 3
        yield Round(
            remains=remains,
            size=rng.choice((SIZE, SIZE, SIZE - 4, SIZE + 4)),
            swapped=rng.choice((2, 3)) if some else PATHS,
            offline=remains != "open map" and not some and rng.random() < 0.3,
            udev_stopped=rng.random() < 0.5,
            expected=rng.random() < 0.5,
        )


def one_target(properties: dict[str, Any], index: int) -> dict[str, Any]:
    lists = ("target_portals", "target_iqns", "target_luns")
    return {**properties, **{name: [properties[name][index]] for name in lists}}


def attach(properties: dict[str, Any], **options: Any) -> manypath.Attachment:
    return manypath.connect(properties, **{"timeout": TIMEOUT, **options})


def detach(lab: Lab, properties: dict[str, Any]) -> None:
    manypath.disconnect(properties, timeout=TIMEOUT)
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def leave(lab: Lab, properties: dict[str, Any], remains: Remains) -> str:
    """Attach the old volume as it will be left; the path of a device that shows it."""
    if remains != "disks":
        path = attach(properties).path
    else:
        for index in range(len(properties["target_portals"])):
            path = attach(one_target(properties, index), multipath=False).path
        assert lab.snapshot().maps == ()
    lab.settle()  # udev's database says whose the disks are: soon, whose they were
    return path


def set_offline(lab: Lab) -> None:
    for device in lab.snapshot().devices:
        Path(f"/sys/block/{device.name}/device/state").write_text("offline\n")


@contextmanager
def udev_stopped() -> Iterator[None]:
    run("udevadm", "control", "--stop-exec-queue")
    try:
        yield
    finally:
        run("udevadm", "control", "--start-exec-queue")


@contextmanager
def writeback_stopped(path: str) -> Iterator[None]:
    """The kernel writes cached data of a device only when somebody asks for it."""
    interval = Path("/proc/sys/vm/dirty_writeback_centisecs")
    # A device that never wrote has no share of the dirty limit: without this its first page is over
    # it, and is written at once (mm/page-writeback.c, wb_over_bg_thresh()).
    share = Path("/sys/block") / Path(path).resolve().name / "bdi/min_ratio"
    before = interval.read_text()
    interval.write_text("0")
    share.write_text("50")  # per cent
    try:
        yield
    finally:
        interval.write_text(before)


@contextmanager
def opened(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def swap(export: Export, volume: Volume, count: int = PATHS) -> None:
    """Behind the host's back: the sessions stay, and nobody tells the host."""
    for target in range(count):
        export.swap(LUN, volume, target)


def assert_is(attachment: manypath.Attachment, new: Volume, old: Volume) -> None:
    """The device, and each path of it, is the new volume and shows it; writes go there alone."""
    untouched = is_untouched(old)
    both = [new, old]
    active = [path for path in attachment.paths if path.state is PathState.ACTIVE]
    assert active
    shown = {path.device: shown_by(device_path(path.device), both, new.size) for path in active}
    shown[attachment.device] = shown_by(attachment.path, both, new.size)
    assert set(shown.values()) == {new.name}, shown
    assert (attachment.wwid, attachment.size_bytes) == (new.wwid, new.size)
    assert is_untouched(new)
    data = pattern(f"written to {new.name}")
    write_direct(attachment.path, data, offset=2 * MIB)
    with new.file.open("rb") as file:
        file.seek(2 * MIB)
        assert file.read(len(data)) == data
    write_direct(attachment.path, bytes(len(data)), offset=2 * MIB)
    assert is_untouched(new)
    assert is_untouched(old) == untouched


def assert_only_map(lab: Lab, volume: Volume) -> None:
    """Also when udev and multipathd have thought about it: no map of the old volume comes back."""
    lab.settle()
    (dm,) = lab.snapshot().maps
    assert dm.uuid == f"mpath-{volume.wwid}"
    if lab.multipathd.pid:

        def adopted() -> bool:
            lines = lab.multipathd.command("show", "paths", "raw", "format", "%d %w").splitlines()
            return {f"{member} {volume.wwid}" for member in dm.members} <= set(lines)

        wait_until(adopted, "multipathd knows the paths as the new volume's", 60)


def try_attach(
    lab: Lab, properties: dict[str, Any], old: Volume, new: Volume, case: Round
) -> ManypathError | None:
    """The new volume, or the error that came instead."""
    options = {"wwid": new.wwid, "serial": new.serial} if case.expected else {}
    try:
        attachment = attach(properties, **options)
    except ManypathError as error:
        return error
    assert len([p for p in attachment.paths if p.state is PathState.ACTIVE]) == case.swapped
    assert_is(attachment, new, old)
    return None


def assert_allowed(
    lab: Lab, before: Snapshot, new: Volume, case: Round, error: ManypathError | None
) -> None:
    """An open map is refused by name and untouched; elsewhere only a mixture may be refused."""
    if case.remains == "open map":
        assert isinstance(error, InUseError)
        (dm,) = before.maps
        assert dm.device in str(error) or dm.name in str(error)
        after = lab.snapshot()
        assert (leaks(before, after), after.maps) == ([], before.maps)
    elif error:
        assert case.swapped < PATHS and isinstance(error, IdentityError | InUseError), error
    assert not error or is_untouched(new)


def play(lab: Lab, export: Export, old: Volume, new: Volume, case: Round) -> str:
    """One round; what came of it. In the end all paths lead to the new volume, unattached."""
    properties = export.properties
    path = leave(lab, properties, case.remains)
    assert shown_by(path, [old], old.size) == old.name
    with ExitStack() as meanwhile:
        if case.remains == "open map":
            meanwhile.enter_context(opened(path))
        if case.udev_stopped:
            meanwhile.enter_context(udev_stopped())
        swap(export, new, case.swapped)
        if case.offline:
            set_offline(lab)
        before = lab.snapshot()
        error = try_attach(lab, properties, old, new, case)
        print(f"  {error!r}" if error else "  the new volume")
        assert_allowed(lab, before, new, case, error)
    if case.swapped < PATHS:
        swap(export, new)
    if error or case.swapped < PATHS:  # with what was in the way gone, the same call succeeds
        manypath.disconnect(properties, timeout=TIMEOUT)
        assert_is(attach(properties), new, old)
    assert_only_map(lab, new)
    detach(lab, properties)
    assert is_untouched(old)
    return type(error).__name__ if error else "the new volume"


def test_rounds(lab: Lab, iscsid: Iscsid, multipathd: Multipathd, record_property: Note) -> None:
    """Never once the wrong data: the new volume's, or an error that says why not."""
    mode = "running" if multipathd.pid else "stopped"
    volume = mark(lab.volume(SIZE, f"reuse-{mode}"))
    export = lab.export(volume, lab.portals(PATHS), lun=LUN)
    counts: collections.Counter[str] = collections.Counter()
    for number, case in enumerate(sample((ROUNDS + 1) // 2, f"{SEED} {mode}")):
        print(f"round {number}: {case}")
        new = mark(lab.volume(case.size, f"reuse-{mode}-{number}"))
        outcome = play(lab, export, volume, new, case)
        counts[f"{case.remains}: {outcome}"] += 1
        lab.targets.delete_volume(volume)
        volume = mark(new)
    for what, count in sorted(counts.items()):
        record_property(what, count)
    print(f"{sum(counts.values())} rounds, multipathd {mode}: {dict(sorted(counts.items()))}")


def test_the_open_map_is_let_go(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Refused as long as the old map is open; then the same call gives the new volume, without a
    disconnect between: nobody may know any more that the old one was attached here.
    """
    old, new = mark(lab.volume(SIZE)), mark(lab.volume(SIZE))
    export = lab.export(old, lab.portals(2), lun=LUN)
    first = attach(export.properties)
    with opened(first.path):
        swap(export, new, 2)
        with pytest.raises(InUseError) as caught:
            attach(export.properties)
        assert old.wwid in str(caught.value) and new.wwid in str(caught.value)
    assert_is(attach(export.properties), new, old)
    assert_only_map(lab, new)
    detach(lab, export.properties)


def test_a_single_path(lab: Lab, iscsid: Iscsid) -> None:
    """Without multipath the disk that is there is no more to be trusted."""
    old, new = mark(lab.volume(SIZE)), mark(lab.volume(SIZE + 4))
    export = lab.export(old, lab.portals(1), lun=LUN)
    attach(export.properties, multipath=False)
    lab.settle()
    swap(export, new, 1)
    assert_is(attach(export.properties, multipath=False), new, old)
    detach(lab, export.properties)


def test_the_number_is_free_for_a_while(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Asked for while the old volume is gone and the new one not there yet: a clear error, and it
    takes the old disks along.
    """
    old, new = mark(lab.volume(SIZE)), mark(lab.volume(SIZE))
    export = lab.export(old, lab.portals(2), lun=LUN)
    attach(export.properties)
    lab.settle()
    export.remove_lun(LUN)
    with pytest.raises(LunNotFoundError):
        attach(export.properties)
    assert is_untouched(old)
    export.put(LUN, new)
    assert_is(attach(export.properties), new, old)
    assert_only_map(lab, new)
    detach(lab, export.properties)


def test_dirty_data_of_the_old_volume(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Its map is open and was written to, without a flush. Neither an attach nor a detach makes the
    kernel write it to the new volume, and once the storage is right again it reaches the old one.
    """
    old, new = mark(lab.volume(SIZE)), mark(lab.volume(SIZE))
    export = lab.export(old, lab.portals(2), lun=LUN)
    first = attach(export.properties)
    lab.settle()
    data = pattern("written and not flushed", MIB)
    with writeback_stopped(first.path), opened(first.path, os.O_RDWR) as user:
        os.pwrite(user, data, 2 * MIB)
        swap(export, new, 2)
        assert is_untouched(old)  # all of it is in the page cache
        with pytest.raises(InUseError):
            attach(export.properties)
        with pytest.raises(InUseError):
            manypath.disconnect(export.properties, timeout=TIMEOUT)
        assert is_untouched(new)
        swap(export, old, 2)
    assert data in old.file.read_bytes()
    assert is_untouched(new)
    detach(lab, export.properties)


def test_dirty_data_that_nobody_can_write(lab: Lab, iscsid: Iscsid) -> None:
    """The old volume is taken away from under its writer, whose data are lost with its errors. They
    must not come back to life in the volume that gets the number.
    """
    old, new = mark(lab.volume(SIZE)), mark(lab.volume(SIZE))
    export = lab.export(old, lab.portals(2), lun=LUN)
    first = attach(export.properties)
    with writeback_stopped(first.path):
        with opened(first.path, os.O_RDWR) as user:
            export.remove_lun(LUN)
            os.pwrite(user, pattern("never to be seen again", MIB), 2 * MIB)
            with pytest.raises(OSError, match=r"Input/output error"):
                os.fsync(user)
        export.put(LUN, new)
        assert_is(attach(export.properties), new, old)
        detach(lab, export.properties)


def test_a_neighbour_is_left_alone(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Two numbers of one target are given away; only the one asked for is touched."""
    olds = [mark(lab.volume(SIZE)) for _ in range(2)]
    new, other = mark(lab.volume(SIZE)), mark(lab.volume(SIZE))
    export = lab.export(olds, lab.portals(2), shape="shared", lun=LUN)
    asked, neighbour = (export.connection_properties(volume) for volume in olds)
    attach(asked)
    kept = attach(neighbour)
    lab.settle()
    export.swap(LUN, new)
    export.swap(LUN + 1, other)
    before = lab.snapshot()
    assert_is(attach(asked), new, olds[0])
    after = lab.snapshot()
    names = {path.device for path in kept.paths}
    assert names <= {device.name for device in after.devices}
    assert [dm for dm in before.maps if dm.device == kept.device] == [
        dm for dm in after.maps if dm.device == kept.device
    ]
    manypath.disconnect(asked, timeout=TIMEOUT)
    assert is_untouched(other)
    detach(lab, neighbour)


# --- the caller says which volume it wants ------------------------------------------------------


def test_the_volume_wanted(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    volume = mark(lab.volume(SIZE))
    properties = lab.export(volume, lab.portals(2)).properties
    for spelling in (volume.wwid, volume.wwid.upper(), f"naa.{volume.wwid[1:]}"):
        attachment = attach(properties, wwid=spelling, serial=volume.serial)
        assert (attachment.wwid, len(attachment.paths)) == (volume.wwid, 2)
    detach(lab, properties)


@pytest.mark.parametrize("what", ["wwid", "serial"])
def test_not_the_volume_wanted(lab: Lab, iscsid: Iscsid, multipathd: Multipathd, what: str) -> None:
    volume, wanted = mark(lab.volume(SIZE)), lab.volume(SIZE)
    properties = lab.export(volume, lab.portals(2)).properties
    right, wrong = getattr(volume, what), getattr(wanted, what)
    with pytest.raises(IdentityError) as caught:
        attach(properties, **{what: wrong})
    told = " ".join([str(caught.value), *(str(path.error) for path in caught.value.paths)])
    assert right in told and wrong in told
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def test_the_volume_wanted_decides_a_tie(lab: Lab, iscsid: Iscsid) -> None:
    """Two paths lead to one volume and two to another: no majority could tell."""
    one, other = mark(lab.volume(SIZE)), mark(lab.volume(SIZE))
    export = lab.export(one, lab.portals(PATHS), lun=LUN)
    swap(export, other, 2)
    with pytest.raises(IdentityError):
        attach(export.properties)
    for wanted, unwanted in ((one, other), (other, one)):
        attachment = attach(export.properties, wwid=wanted.wwid)
        states = collections.Counter(path.state for path in attachment.paths)
        assert states == {PathState.ACTIVE: 2, PathState.FAILED: 2}
        assert shown_by(attachment.path, [one, other], SIZE * MIB) == wanted.name
        assert is_untouched(wanted) and is_untouched(unwanted)
        detach(lab, export.properties)
