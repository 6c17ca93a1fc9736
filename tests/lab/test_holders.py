"""Others who hold a volume's disk, or its map: refused by name, and nothing is touched."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

import manypath
from lab import Iscsid, Lab, Multipathd, Snapshot, leaks, run, wait_until
from lab.blockdev import device_path, pattern, read_direct
from lab.holders import array, linear_map, logical_volume, mounted, partition, swap
from manypath import PathState
from manypath.errors import InUseError

TIMEOUT = 60.0
SIZE = 32  # MiB
MOUNT_POINT = Path("/run/lab holder/here")  # the blank is \\040 in mountinfo
LVM_UUID = "LVM-" + "0123456789abcdef" * 4

Holder = Callable[[Path], AbstractContextManager[Path]]

#: What holds a disk, and words that tell a user where to look for it.
HOLDERS: dict[str, tuple[Holder, list[str]]] = {
    "logical volume": (lambda disk: logical_volume(disk, "tenant"), ["tenant-root"]),
    "array": (lambda disk: array(disk, "md_lab"), ["md_lab"]),
    "linear map": (lambda disk: linear_map(disk, "secret", "CRYPT-LUKS2-x"), ["secret"]),
    "multipath map of another uuid": (
        lambda disk: linear_map(disk, "stray", "mpath-36001405ffffffffffffffffffffffff"),
        ["stray"],
    ),
    "file system": (lambda disk: mounted(disk, MOUNT_POINT), [str(MOUNT_POINT)]),
    "swap": (swap, ["swap"]),
}


def attach(properties: dict[str, Any], **options: Any) -> manypath.Attachment:
    """Attach with every path, or the single one, usable."""
    attachment = manypath.connect(properties, **{"timeout": TIMEOUT, **options})
    assert {path.state for path in attachment.paths} <= {PathState.ACTIVE, PathState.UNUSED}
    return attachment


def assert_detached(lab: Lab, properties: dict[str, Any]) -> None:
    manypath.disconnect(properties, timeout=TIMEOUT)
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def assert_untouched(lab: Lab, before: Snapshot) -> None:
    after = lab.snapshot()
    assert (leaks(before, after), after.maps) == ([], before.maps)


def told(error: InUseError) -> str:
    """All that the caller can read, of the operation and of each path."""
    return " ".join([str(error), *(str(path.error) for path in error.paths)])


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_path_that_somebody_holds(lab: Lab, iscsid: Iscsid, holder: str) -> None:
    """One of two disks is another's: no map is made, no disk deleted. As the single path that it
    was attached as it is handed out again, with a warning, to whom a file system on it belongs; a
    device on top of it is nobody's who asks for the disk.
    """
    hold, words = HOLDERS[holder]
    properties = lab.export(lab.volume(SIZE), lab.portals(2)).properties
    disk = device_path(attach(properties, multipath=False).device)
    lab.settle()
    with hold(disk):
        data = read_direct(disk, length=1 << 20)
        before = lab.snapshot()
        refusals: list[Callable[..., object]] = [manypath.connect, manypath.disconnect]
        if holder in ("file system", "swap"):
            (warning,) = attach(properties, multipath=False).warnings
            assert disk.name in warning
        else:
            refusals.append(functools.partial(manypath.connect, multipath=False))
        for refused in refusals:
            with pytest.raises(InUseError) as caught:
                refused(properties, timeout=TIMEOUT)
            text = told(caught.value)
            assert [word for word in [disk.name, *words] if word not in text] == [], text
            assert_untouched(lab, before)
        if holder != "file system":  # which writes when it likes
            assert read_direct(disk, length=1 << 20) == data
    assert len(attach(properties).paths) == 2
    assert_detached(lab, properties)


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_map_that_somebody_holds(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, holder: str
) -> None:
    """The same on the map: attached again as it is, and not detached."""
    hold, words = HOLDERS[holder]
    properties = lab.export(lab.volume(SIZE), lab.portals(2)).properties
    attachment = attach(properties)
    lab.settle()
    with hold(Path(attachment.path)):
        assert attach(properties).path == attachment.path
        before = lab.snapshot()
        with pytest.raises(InUseError) as caught:
            manypath.disconnect(properties, timeout=TIMEOUT)
        text = str(caught.value)
        assert [word for word in [attachment.device, *words] if word not in text] == [], text
        assert_untouched(lab, before)
    assert_detached(lab, properties)


def test_a_partition_of_a_path(lab: Lab, iscsid: Iscsid) -> None:
    """Mounted by its partition, a disk is in use as well."""
    properties = lab.export(lab.volume(SIZE), lab.portals(1)).properties
    disk = device_path(attach(properties, multipath=False).device)
    partition(disk)
    run("blockdev", "--rereadpt", str(disk))
    part = Path(f"{disk}1")
    wait_until(part.exists, f"{part} is there")
    lab.settle()
    with mounted(part, MOUNT_POINT):
        before = lab.snapshot()
        refusals: list[Callable[..., object]] = [manypath.connect, manypath.disconnect]
        for operation in refusals:
            with pytest.raises(InUseError) as caught:
                operation(properties, timeout=TIMEOUT)
            assert str(MOUNT_POINT) in told(caught.value)
            assert_untouched(lab, before)
    assert_detached(lab, properties)


def test_partitions_of_the_map(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Refused as long as one is mounted, with the mount point; then they go with the map, and what
    was written to them is on the volume.
    """
    volume = lab.volume(SIZE)
    properties = lab.export(volume, lab.portals(2)).properties
    attachment = attach(properties)
    lab.settle()
    partition(attachment.path)
    run("kpartx", "-a", "-s", attachment.path)
    parts = [dm for dm in lab.snapshot().maps if dm.kind.startswith("part")]
    assert [dm.uuid for dm in parts] == [f"part1-mpath-{volume.wwid}"]
    data = pattern("in a file")
    with mounted(f"/dev/{parts[0].device}", MOUNT_POINT) as folder:
        (folder / "file").write_bytes(data)
        before = lab.snapshot()
        with pytest.raises(InUseError) as caught:
            manypath.disconnect(properties, timeout=TIMEOUT)
        assert str(MOUNT_POINT) in str(caught.value)
        assert parts[0].device in str(caught.value)
        assert_untouched(lab, before)
    assert_detached(lab, properties)
    assert data in volume.file.read_bytes()
