"""Steps that tests of several files take: a marked volume, attach, look closely, detach."""

from __future__ import annotations

from typing import Any

import manypath
from lab import Lab, Volume, dm
from lab.blockdev import pattern, read_direct, write_direct
from manypath import PathState

TIMEOUT = 60.0
MIB = 1 << 20
MARK = 4096  # bytes at the end of a volume


def mark(volume: Volume) -> None:
    """Write the volume's name to its end, on the storage: so it is known by what is read."""
    with volume.file.open("r+b") as storage:
        storage.seek(volume.size - MARK)
        storage.write(pattern(volume.name, MARK))


def assert_marked(device: str, volume: Volume) -> None:
    """The device shows this volume and no other."""
    assert read_direct(device, volume.size - MARK, MARK) == pattern(volume.name, MARK)


def attach(properties: dict[str, Any], **options: Any) -> manypath.Attachment:
    """Attach with every path usable, or fail with the reason of those that are not."""
    attachment = manypath.connect(properties, timeout=TIMEOUT, **options)
    unusable = [str(path.error) for path in attachment.paths if path.state is not PathState.ACTIVE]
    assert unusable == []
    return attachment


def disks(attachment: manypath.Attachment) -> set[str]:
    return {path.device for path in attachment.paths if path.device is not None}


def assert_right_map(lab: Lab, volume: Volume, device: str, members: set[str]) -> None:
    """One map, of this volume, finished, with these disks; the data is the volume's, and can be
    written and read.
    """
    maps = [found for found in lab.snapshot().maps if found.kind == "mpath"]
    assert [found.uuid for found in maps] == [f"mpath-{volume.wwid}"]
    (found,) = maps
    assert (found.device, set(found.members), found.suspended) == (device, members, False)
    assert frozenset().union(*dm.table(volume.wwid).groups) == members
    assert_marked(f"/dev/{device}", volume)
    data = pattern(f"{device} {len(members)}", MIB)
    write_direct(f"/dev/{device}", data)
    assert read_direct(f"/dev/{device}", length=MIB) == data


def detach(lab: Lab, properties: dict[str, Any]) -> None:
    """Detach, and find nothing left."""
    manypath.disconnect(properties, timeout=TIMEOUT)
    assert_nothing_left(lab)


def assert_nothing_left(lab: Lab) -> None:
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())
