# SPDX-License-Identifier: Apache-2.0
"""Who a volume is: what the caller expects, what only udev can tell, who else has its disks."""

from __future__ import annotations

import fcntl
from collections.abc import Callable

import pytest

from fake.host import NET, Disk, FakeHost, Volume, at_most, designator, new_volume, until
from fake.library import Failure

# --- expected -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["3{}", "naa.{}", "NAA.{}"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_expected_wwid(host: FakeHost, spelling: str, case: Callable[[str], str]) -> None:
    volume = host.export()
    text = spelling.format(case(volume.number))
    assert host.handle.attach(host.targets(2), wwid=text).finish().wwid == volume.wwid


def test_expected_serial(host: FakeHost) -> None:
    volume = host.export()
    made = host.handle.attach(host.targets(2), serial=" 4711", wwid=volume.wwid).finish()
    assert made.path_count == 2


def test_page_80_is_read_on_request_only(host: FakeHost) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    assert len(host.passed("inquiry")) == 2


@pytest.mark.parametrize("name", ["wwid", "serial"])
def test_not_what_is_expected(host: FakeHost, name: str) -> None:
    volume = host.export()
    wanted = new_volume().wwid if name == "wwid" else "0815"
    error = host.handle.attach(host.targets(2), **{name: wanted}).failure()
    assert (error.code, error.phase) == ("IDENTITY", "identity")
    assert wanted in error.message
    assert (volume.wwid if name == "wwid" else "4711") in error.message
    assert host.clean
    assert not host.passed("dm.create")


def test_one_path_is_not_what_is_expected(host: FakeHost) -> None:
    volume = host.export()
    host.export(address=f"{NET}.1.2")
    made = host.handle.attach(host.targets(3), wwid=volume.wwid).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED", "ACTIVE"]
    assert made.paths[1].error.code == "IDENTITY"
    assert volume.wwid in made.paths[1].error.message
    assert "kept out" in made.warnings[0]


def test_too_few_are_what_is_expected(host: FakeHost) -> None:
    volume = host.export()
    host.export(address=f"{NET}.1.2")
    error = host.handle.attach(host.targets(2), min_paths=2, wwid=volume.wwid).failure()
    assert error.code == "IDENTITY"
    assert host.clean


def test_expected_wwid_breaks_a_tie(host: FakeHost) -> None:
    volume = host.export()
    host.export(address=f"{NET}.1.2")
    targets = host.targets(2)
    assert host.handle.attach(targets).failure().code == "IDENTITY"
    assert host.handle.attach(targets, wwid=volume.wwid).finish().wwid == volume.wwid


def test_expected_of_a_single_path(host: FakeHost) -> None:
    """The next target serves."""
    volume = host.export()
    host.export(address=f"{NET}.1.1")
    made = host.handle.attach(host.targets(2), wwid=volume.wwid, single_path=True).finish()
    assert [path.state for path in made.paths] == ["FAILED", "ACTIVE"]


@pytest.mark.parametrize(
    "wwid",
    ["", "3600", "/dev/disk/by-id/wwn-0x6001405", "scsi-36001405", "0x6001405", "3" + "g" * 32],
)
def test_malformed_wwid(host: FakeHost, wwid: str) -> None:
    with pytest.raises(Failure, match="expected wwid") as caught:
        host.handle.attach(host.targets(1), wwid=wwid)
    assert caught.value.code == "INVALID"


@pytest.mark.parametrize("serial", ["", "  ", "a\tb", "x" * 256])
def test_malformed_serial(host: FakeHost, serial: str) -> None:
    with pytest.raises(Failure, match="expected serial") as caught:
        host.handle.attach(host.targets(1), serial=serial)
    assert caught.value.code == "INVALID"


# --- sizes ----------------------------------------------------------------------------------------


def test_tie_of_sizes(host: FakeHost) -> None:
    """Both are the volume, and nobody can say how large it is."""
    volume = host.export()
    targets = host.targets(2)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    host.disks["sdb"].told = volume.size * 2
    error = host.handle.attach(targets, wwid=volume.wwid).failure()
    assert error.code == "IDENTITY"
    assert not host.dm.maps


# --- the WWID that only udev can tell -------------------------------------------------------------

T10 = designator(2, 1, b"LIO-ORG volume  7")
NAA3 = designator(1, 3, bytes.fromhex("3333000000000007"))


def named(designators: bytes = T10 + NAA3) -> Volume:
    volume = new_volume()
    volume.designators = designators
    return volume


def tell(host: FakeHost, serial: str) -> Callable[[Disk], float]:
    """udev sees each disk when it appears."""

    def delay(disk: Disk) -> float:
        host.udev_entry(disk, serial)
        return 0.0

    return delay


def test_udev_tells(host: FakeHost) -> None:
    host.export(volume=named())
    operation = host.handle.attach(host.targets(2))
    assert not operation.wait(0.2)
    for disk in host.disks.values():
        host.udev_entry(disk, "1LIO-ORG_volume_7")
    made = operation.finish()
    assert made.wwid == "1LIO-ORG_volume_7"
    assert list(host.dm.maps) == ["mpath-1LIO-ORG_volume_7"]


def test_udev_can_have_the_disk_meanwhile(host: FakeHost) -> None:
    """It leaves locked disks alone."""
    host.export(volume=named())
    operation = host.handle.attach(host.targets(1))
    assert until(lambda: host.passed("inquiry"))
    with (host.dev / "sda").open() as file:

        def lock() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        assert until(lock)
    host.udev_entry(host.disks["sda"], "1LIO-ORG_volume_7")
    operation.finish()


def test_udev_has_a_name_of_its_own(host: FakeHost) -> None:
    """From a rule of the site: believed, since it was written after the disk appeared."""
    host.export(volume=named())
    host.device_delay = tell(host, "Sfile_of_7")
    assert host.handle.attach(host.targets(2)).finish().wwid == "Sfile_of_7"


def test_udev_has_an_old_entry(host: FakeHost) -> None:
    """Of the disk that had the number before."""
    host.export(volume=named())

    def delay(disk: Disk) -> float:
        host.udev_entry(disk, "1LIO-ORG_other", at=1.0)
        return 0.0

    host.device_delay = delay
    operation = host.handle.attach(host.targets(1))
    assert not operation.wait(0.2)
    host.udev_entry(host.disks["sda"], "1LIO-ORG_volume_7")
    assert operation.finish().wwid == "1LIO-ORG_volume_7"


def test_udev_does_not_tell(host: FakeHost) -> None:
    host.export(volume=named())
    with at_most(2.5):
        error = host.handle.attach(host.targets(2), timeout=1.5).failure()
    assert error.code == "IDENTITY"
    assert "check that udevd runs" in error.message
    assert until(lambda: host.clean)


def test_udev_skipped_the_disk(host: FakeHost) -> None:
    """Older ones do while it is locked: it is announced once more."""
    host.export(volume=named())
    operation = host.handle.attach(host.targets(1), timeout=10.0)
    assert until(lambda: "sda" in host.disks)
    uevent = host.disks["sda"].folder / "block" / "sda" / "uevent"
    assert until(lambda: uevent.read_text() == "change")
    host.udev_entry(host.disks["sda"], "1LIO-ORG_volume_7")
    operation.finish()


def test_udev_says_the_same_of_different_disks(host: FakeHost) -> None:
    """The designators must agree as well."""
    host.export(volume=named())
    host.export(volume=named(T10 + designator(1, 3, bytes.fromhex("3333000000000008"))))
    host.export(address=f"{NET}.1.2", volume=named(T10 + designator(2, 1, b"x")))
    host.device_delay = tell(host, "1LIO-ORG_volume_7")
    error = host.handle.attach(host.targets(2)).failure()
    assert error.code == "IDENTITY"
    assert not host.dm.maps


@pytest.mark.parametrize("serial", ["1a/b", "1a b", "1" + "x" * 200])
def test_udevs_name_is_none_for_a_map(host: FakeHost, serial: str) -> None:
    host.export(volume=named())
    host.device_delay = tell(host, serial)
    error = host.handle.attach(host.targets(1)).failure()
    assert error.code == "IDENTITY"
    assert "name of a map" in error.message


def test_empty_number(host: FakeHost) -> None:
    """Each LUN of such a target has it, whatever udev says."""
    host.export(volume=named(designator(1, 3, b"\x60" + bytes(15))))
    host.device_delay = tell(host, "36" + "0" * 31)
    with at_most(1.5):
        error = host.handle.attach(host.targets(1)).failure()
    assert (error.code, error.phase) == ("IDENTITY", "identity")


# --- foreign holders ------------------------------------------------------------------------------


@pytest.mark.parametrize("single_path", [False, True])
@pytest.mark.parametrize(
    ("uuid", "kind"), [("LVM-abc", "linear"), ("CRYPT-LUKS2-abc", "crypt"), ("", "linear")]
)
def test_map_of_somebody_else(host: FakeHost, uuid: str, kind: str, single_path: bool) -> None:
    """os-brick takes it for the multipath map."""
    host.export()
    targets = host.targets(2)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    host.dm.make(uuid, [host.disks["sda"].dev], 8, kind=kind, name="vg-lv")
    error = host.handle.attach(targets, single_path=single_path).failure()
    assert (error.code, error.phase) == ("IN_USE", "identity")
    assert "dm-0 (vg-lv" in error.message
    assert "sda" in error.message
    assert list(host.dm.maps) == [uuid]
    assert not host.passed("dm.load")
    assert len(host.disks) == 2


def test_held_as_soon_as_it_appeared(host: FakeHost) -> None:
    """A volume group in the volume, activated by the host."""
    host.export()
    host.call("inquiry", lambda: host.dm.make("LVM-abc", [(8, 0)], 8, kind="linear"), "sda")
    error = host.handle.attach(host.targets(2)).failure()
    assert error.code == "IN_USE"
    assert list(host.dm.maps) == ["LVM-abc"]


def test_not_in_the_way_of_multipathd(host: FakeHost) -> None:
    """It locks disks while it makes a map of them: they are not claimed then, not even to look."""
    host.export()
    (target,) = host.targets(1)
    host.add_disk(host.add_session(target), 1)
    with (host.dev / "sda").open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        host.handle.attach([target]).finish()
    assert not host.passed("open")


def test_held_by_a_map_that_is_being_removed(host: FakeHost) -> None:
    """It has lost its name already: waited for."""
    host.export()
    (target,) = host.targets(1)
    host.add_disk(host.add_session(target), 1)
    disk = host.disks["sda"]
    disk.claimed = True
    (disk.folder / "block" / "sda" / "holders" / "dm-7").touch()
    attach = host.handle.attach([target])
    assert not attach.wait(0.1)
    disk.claimed = False
    attach.finish()


@pytest.mark.parametrize("where", ["holders", "sda1/holders"])
def test_md(host: FakeHost, where: str) -> None:
    """On the disk, or on a partition of it."""
    host.export()
    targets = host.targets(2)
    for target in targets:
        host.add_disk(host.add_session(target), 1)
    disk = host.disks["sda"]
    disk.claimed = True
    folder = disk.folder / "block" / "sda" / where
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "md0").touch()
    error = host.handle.attach(targets).failure()
    assert error.code == "IN_USE"
    assert "held by md0" in error.message


def test_mounted_single_path(host: FakeHost) -> None:
    """Attaching again returns the same disk, in use or not."""
    host.export()
    host.handle.attach(host.targets(1), single_path=True).finish()
    host.disks["sda"].claimed = True
    made = host.handle.attach(host.targets(1), single_path=True).finish()
    assert made.device == "sda"
    assert "in use" in made.warnings[0]


def test_candidate_that_is_held(host: FakeHost) -> None:
    """Another volume's, in use: kept out, and no reason to refuse."""
    host.export()
    first, other = host.targets(2)
    host.add_disk(host.add_session(other), 1)
    host.disks["sda"].volume = new_volume()
    host._read_pages(host.disks["sda"])
    host.dm.make("LVM-abc", [host.disks["sda"].dev], 8, kind="linear", name="vg-lv")
    made = host.handle.attach([first], candidates=[other]).finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "FAILED"]
