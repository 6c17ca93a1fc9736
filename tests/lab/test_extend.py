"""Extend on the real stack: every path, then the map, and the data intact."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import manypath
from lab import Iscsid, Lab, Multipathd, Volume, wait_until
from lab.blockdev import device_path, pattern, read_direct, write_direct
from lab.tools import run
from manypath import PathState
from manypath.errors import (
    DeviceError,
    IdentityError,
    InvalidRequestError,
    MapError,
    SessionError,
)

TIMEOUT = 60.0
MIB = 1 << 20
OLD, NEW = 64, 96  # MiB


def attach(properties: dict[str, Any], **options: Any) -> manypath.Attachment:
    attachment = manypath.connect(properties, timeout=TIMEOUT, **options)
    unusable = [str(p.error) for p in attachment.paths if p.error is not None]
    assert unusable == []
    return attachment


def detach(lab: Lab, properties: dict[str, Any]) -> None:
    manypath.disconnect(properties, timeout=TIMEOUT)
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def size_of(device: str | None) -> int:
    return int(Path(f"/sys/block/{device}/size").read_text()) * 512


def assert_usable(extension: manypath.Extension) -> None:
    """The end of the volume can be written, and every path shows it."""
    end = extension.size_bytes - MIB
    data = pattern(f"end at {end}", MIB)
    write_direct(extension.path, data, offset=end)
    for path in extension.paths:
        if path.error is None:
            assert path.device is not None
            assert read_direct(device_path(path.device), offset=end, length=MIB) == data


@contextmanager
def readers_and_writers(device: str) -> Iterator[list[str]]:
    """Write and read back below the old end, all the time; yields what went wrong."""
    problems: list[str] = []
    over = threading.Event()

    def work(place: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            data = pattern(f"{place}-{turn}", 64 * 1024)
            try:
                write_direct(device, data, offset=place * MIB)
                if read_direct(device, offset=place * MIB, length=len(data)) != data:
                    problems.append(f"wrong bytes at {place} MiB in turn {turn}")
            except OSError as error:
                problems.append(f"{error} at {place} MiB in turn {turn}")
                return

    threads = [threading.Thread(target=work, args=(place,)) for place in (1, 7, OLD - 1)]
    for thread in threads:
        thread.start()
    try:
        yield problems
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_a_map_of_four_paths_grows_in_use(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """At once after the attach, when multipathd may not have taken the map over yet."""
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(4)).properties
    attachment = attach(properties)
    data = pattern("from before", MIB)
    write_direct(attachment.path, data)
    user = os.open(attachment.path, os.O_RDONLY | os.O_EXCL)
    try:
        with readers_and_writers(attachment.path) as problems:
            volume.resize(NEW)
            extension = manypath.extend(properties, timeout=TIMEOUT)
    finally:
        os.close(user)
    assert problems == []
    assert (extension.path, extension.wwid) == (attachment.path, volume.wwid)
    assert (extension.old_size_bytes, extension.size_bytes) == (OLD * MIB, NEW * MIB)
    assert extension.multipathd_running == bool(multipathd.pid)
    assert extension.warnings == ()
    assert [path.state for path in extension.paths] == [PathState.ACTIVE] * 4
    assert size_of(extension.device) == NEW * MIB
    assert {size_of(path.device) for path in extension.paths} == {NEW * MIB}
    (dm,) = lab.snapshot().maps
    assert not dm.suspended
    # multipathd may be about to add one that it did not know when it took the map over
    wait_until(lambda: len(lab.snapshot().maps[0].members) == 4, "the map has all its disks")
    assert read_direct(attachment.path, length=MIB) == data
    assert_usable(extension)
    detach(lab, properties)


def test_again_and_again(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Each growth, and after each one the same call with nothing to do."""
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(2)).properties
    attach(properties)
    before = OLD
    for size in (65, 80, NEW):
        volume.resize(size)
        extension = manypath.extend(properties, size=size * MIB, timeout=TIMEOUT)
        assert (extension.old_size_bytes, extension.size_bytes) == (before * MIB, size * MIB)
        again = manypath.extend(properties, size=size * MIB, timeout=TIMEOUT)
        assert again.old_size_bytes == again.size_bytes == size * MIB
        before = size
    assert attach(properties).size_bytes == NEW * MIB
    detach(lab, properties)


def test_one_portal_named_extends_every_path(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd
) -> None:
    """A discovered volume, where the request knows one portal (the incumbent's defect G)."""
    volume = lab.volume(OLD)
    export = lab.export(volume, lab.portals(4), shape="shared")
    singles = {key: value for key, value in export.properties.items() if not key.endswith("s")}
    attach(singles)
    volume.resize(NEW)
    extension = manypath.extend(singles, timeout=TIMEOUT)
    assert len(extension.paths) == 4
    assert extension.size_bytes == NEW * MIB
    assert {size_of(path.device) for path in extension.paths} == {NEW * MIB}
    assert_usable(extension)
    detach(lab, singles)


def test_multipathd_keeps_the_new_size(lab: Lab, iscsid: Iscsid) -> None:
    """Over reconfigure and restart."""
    lab.multipathd.start()
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(2)).properties
    device = attach(properties).device
    volume.resize(NEW)
    manypath.extend(properties, timeout=TIMEOUT)
    lab.settle()
    lab.multipathd.command("reconfigure")

    def whole() -> bool:
        paths = lab.multipathd.command("show", "paths", "raw", "format", "%d %w %t")
        return sum(volume.wwid in line and "active" in line for line in paths.splitlines()) == 2

    wait_until(whole, "multipathd has both paths after reconfigure", 60)
    assert size_of(device) == NEW * MIB
    lab.multipathd.restart()
    wait_until(whole, "multipathd has both paths after its restart", 60)
    assert size_of(device) == NEW * MIB
    detach(lab, properties)


def test_user_friendly_names(lab: Lab, iscsid: Iscsid) -> None:
    """The map's name is not its WWID then, and multipathd before 0.9.8 knows names only."""
    lab.multipathd.configure(user_friendly_names=True)
    lab.multipathd.start()
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(2)).properties
    attach(properties)
    lab.settle()
    lab.multipathd.command("reconfigure")
    volume.resize(NEW)
    assert manypath.extend(properties, timeout=TIMEOUT).size_bytes == NEW * MIB
    detach(lab, properties)


def test_reconfigured_meanwhile(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """multipathd refuses paths of different sizes, and would remove a map that nobody has open."""
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(4)).properties
    device = attach(properties).device
    lab.settle()
    over = threading.Event()

    def reconfigure() -> None:
        while not over.is_set():
            run("multipathd", "reconfigure", check=False)  # refused while it is at it
            over.wait(0.05)

    busy = threading.Thread(target=reconfigure)
    busy.start()
    try:
        for size in range(OLD + 1, OLD + 9):
            volume.resize(size)
            extension = manypath.extend(properties, timeout=TIMEOUT)
            assert (extension.device, extension.size_bytes) == (device, size * MIB)
    finally:
        over.set()
        busy.join()
    detach(lab, properties)


@pytest.mark.parametrize("how", ["reject", "drop"])
def test_one_portal_is_cut(lab: Lab, iscsid: Iscsid, multipathd: Multipathd, how: str) -> None:
    """The others are extended; the path comes back with the same call once the portal is back."""
    volume = lab.volume(OLD)
    export = lab.export(volume, lab.portals(3))
    attachment = attach(export.properties)
    lab.settle()
    lab.cut(export.portals[0], how)
    volume.resize(NEW)
    with readers_and_writers(attachment.path) as problems:
        extension = manypath.extend(export.properties, timeout=TIMEOUT)
    assert problems == []
    assert extension.size_bytes == size_of(extension.device) == NEW * MIB
    states = {str(path.portal): path.state for path in extension.paths}
    assert states.pop(str(export.portals[0])) is PathState.FAILED
    assert set(states.values()) == {PathState.ACTIVE}
    (warning,) = extension.warnings
    assert "extend again" in warning
    assert_usable(extension)
    (dm,) = lab.snapshot().maps
    assert len(dm.members) == 2

    lab.heal()

    def back() -> bool:
        state = lab.snapshot()
        sessions = [session.state for session in state.sessions]
        devices = [device.state for device in state.devices]
        return sessions == ["LOGGED_IN"] * 3 and devices == ["running"] * 3

    wait_until(back, "the session and its disk are back", 120)
    extension = manypath.extend(export.properties, timeout=TIMEOUT)
    assert extension.warnings == ()
    assert {path.state for path in extension.paths} == {PathState.ACTIVE}
    assert {size_of(path.device) for path in extension.paths} == {NEW * MIB}
    (dm,) = lab.snapshot().maps
    assert len(dm.members) == 3
    assert_usable(extension)
    detach(lab, export.properties)


def test_every_portal_is_cut(lab: Lab, iscsid: Iscsid) -> None:
    volume = lab.volume(OLD)
    export = lab.export(volume, lab.portals(2))
    attachment = attach(export.properties)
    for portal in export.portals:
        lab.cut(portal)
    volume.resize(NEW)
    with pytest.raises(DeviceError, match="no path"):
        manypath.extend(export.properties, timeout=30)
    assert size_of(attachment.device) == OLD * MIB
    lab.heal()
    wait_until(
        lambda: {device.state for device in lab.snapshot().devices} == {"running"},
        "the disks are back",
        120,
    )
    assert manypath.extend(export.properties, timeout=TIMEOUT).size_bytes == NEW * MIB
    detach(lab, export.properties)


def test_shrinking_is_refused(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(2)).properties
    device = attach(properties).device
    volume.resize(32)
    with pytest.raises(MapError, match="smaller") as caught:
        manypath.extend(properties, timeout=TIMEOUT)
    assert str(OLD * MIB) in str(caught.value) and str(32 * MIB) in str(caught.value)
    assert not caught.value.retryable
    assert size_of(device) == OLD * MIB
    volume.resize(OLD)
    assert manypath.extend(properties, timeout=TIMEOUT).size_bytes == OLD * MIB
    with pytest.raises(InvalidRequestError, match="cut off"):
        manypath.extend(properties, size=32 * MIB, timeout=TIMEOUT)
    detach(lab, properties)


def test_the_storage_is_not_extended(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(OLD), lab.portals(2)).properties
    device = attach(properties).device
    with pytest.raises(DeviceError, match="extended on the storage"):
        manypath.extend(properties, size=NEW * MIB, timeout=5)
    assert size_of(device) == OLD * MIB
    detach(lab, properties)


def test_the_storage_is_extended_late(lab: Lab, iscsid: Iscsid) -> None:
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(2)).properties
    attach(properties)
    late = threading.Timer(2.0, volume.resize, (NEW,))
    late.start()
    try:
        extension = manypath.extend(properties, size=NEW * MIB, timeout=TIMEOUT)
    finally:
        late.join()
    assert extension.size_bytes == NEW * MIB
    detach(lab, properties)


def test_a_lun_that_is_another_volume_now(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Of one path: refused, and nothing is changed, not even the size of that path."""
    volume, other = lab.volume(OLD), lab.volume(128)
    export = lab.export(volume, lab.portals(2))
    attachment = attach(export.properties)
    lab.settle()
    export.swap(1, other, target=1)
    volume.resize(NEW)
    with pytest.raises(IdentityError) as caught:
        manypath.extend(export.properties, timeout=TIMEOUT)
    assert other.wwid in str(caught.value) and volume.wwid in str(caught.value)
    assert size_of(attachment.device) == OLD * MIB
    (wrong,) = (p.device for p in attachment.paths if p.portal == attachment.paths[1].portal)
    assert size_of(wrong) == OLD * MIB
    export.swap(1, volume, target=1)
    assert manypath.extend(export.properties, timeout=TIMEOUT).size_bytes == NEW * MIB
    detach(lab, export.properties)


def test_a_single_path(lab: Lab, iscsid: Iscsid) -> None:
    volume = lab.volume(OLD)
    properties = lab.export(volume, lab.portals(2)).properties
    attachment = manypath.connect(properties, multipath=False, timeout=TIMEOUT)
    volume.resize(NEW)
    extension = manypath.extend(properties, multipath=False, timeout=TIMEOUT)
    assert (extension.path, extension.wwid) == (attachment.path, volume.wwid)
    assert (extension.old_size_bytes, extension.size_bytes) == (OLD * MIB, NEW * MIB)
    assert_usable(extension)
    detach(lab, properties)


def test_a_neighbour_is_left_alone(lab: Lab, iscsid: Iscsid) -> None:
    """Two volumes behind one target: the other one is not rescanned."""
    volumes: list[Volume] = [lab.volume(OLD), lab.volume(OLD)]
    export = lab.export(volumes, lab.portals(2), shape="shared")
    one, two = (export.connection_properties(volume) for volume in volumes)
    attach(one)
    other = attach(two)
    for volume in volumes:
        volume.resize(NEW)
    assert manypath.extend(one, timeout=TIMEOUT).size_bytes == NEW * MIB
    assert {size_of(path.device) for path in other.paths} == {OLD * MIB}
    assert size_of(other.device) == OLD * MIB
    manypath.disconnect(one, timeout=TIMEOUT)
    detach(lab, two)


def test_not_attached(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(OLD), lab.portals(2)).properties
    with pytest.raises(SessionError, match="not attached"):
        manypath.extend(properties, timeout=TIMEOUT)
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())
