"""Steps that tests of several files take: a marked volume, attach, look closely, detach."""

from __future__ import annotations

from typing import Any

import manypath
from lab import Lab, Volume, dm, wait_until
from lab.blockdev import pattern, read_direct, write_direct
from manypath import PathState

TIMEOUT = 60.0
MIB = 1 << 20
MARK = 4096  # bytes at the end of a volume
WHOLE = 30.0  # seconds that multipathd gets for paths that it did not know yet


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
    written and read. A multipathd that loads its own table may do so with the paths that it knows
    by then, and add the others a moment later.
    """
    maps = [found for found in lab.snapshot().maps if found.kind == "mpath"]
    assert [(found.uuid, found.device) for found in maps] == [(f"mpath-{volume.wwid}", device)]

    def whole() -> bool:
        (found,) = (found for found in lab.snapshot().maps if found.kind == "mpath")
        table = frozenset().union(*dm.table(volume.wwid).groups)
        return (set(found.members), found.suspended, table) == (members, False, members)

    if lab.multipathd.pid:
        wait_until(whole, f"the map has the disks {sorted(members)}", WHOLE)
    else:
        assert whole()
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
