"""Attach and detach against the real iscsid, LIO, udevd, multipathd and kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import manypath
from lab import Iscsid, Lab, Multipathd, run, wait_until
from lab.blockdev import device_path, pattern, read_direct, write_direct
from lab.iscsiadm import iscsiadm, login
from manypath import PathState
from manypath.errors import InUseError

TIMEOUT = 30.0
MIB = 1 << 20


def attach(properties: dict[str, Any]) -> manypath.Attachment:
    """Attach with every path usable, or fail with the reason of those that are not."""
    attachment = manypath.connect(properties, timeout=TIMEOUT)
    unusable = [str(path.error) for path in attachment.paths if path.state is not PathState.ACTIVE]
    assert unusable == []
    return attachment


def detach(properties: dict[str, Any]) -> manypath.Detachment:
    return manypath.disconnect(properties, timeout=TIMEOUT)


def assert_nothing_left(lab: Lab) -> None:
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def test_four_portals_give_one_map_with_four_active_paths(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd
) -> None:
    volume = lab.volume()
    properties = lab.export(volume, lab.portals(4)).properties

    attachment = attach(properties)

    assert attachment.wwid == volume.wwid
    assert attachment.size_bytes == volume.size
    told = [text for text in attachment.warnings if "multipathd is not running" in text]
    assert len(attachment.warnings) == len(told) == (not multipathd.pid)
    assert not attachment.map_existed
    assert attachment.multipathd_running == bool(multipathd.pid)
    assert [str(path.portal) for path in attachment.paths] == properties["target_portals"]
    (dm,) = lab.snapshot().maps
    assert (dm.uuid, dm.device) == (f"mpath-{volume.wwid}", attachment.device)
    assert set(dm.members) == {path.device for path in attachment.paths}

    data = pattern("four portals", MIB)
    write_direct(attachment.path, data, offset=MIB)
    for path in attachment.paths:
        assert read_direct(device_path(path.device), offset=MIB, length=MIB) == data

    detachment = detach(properties)

    assert detachment.map_removed
    assert (detachment.devices_removed, detachment.sessions_removed) == (4, 4)
    assert_nothing_left(lab)


def test_multipathd_adopts_the_map_and_keeps_it(lab: Lab, iscsid: Iscsid) -> None:
    lab.multipathd.start()
    volume = lab.volume()
    properties = lab.export(volume, lab.portals(4)).properties
    attachment = attach(properties)

    def adopted() -> bool:
        paths = lab.multipathd.command("show", "paths", "raw", "format", "%d %w %t")
        return sum(volume.wwid in line and "active" in line for line in paths.splitlines()) == 4

    wait_until(adopted, "multipathd has the four paths in the map", 60)
    run("udevadm", "settle", "--timeout=60")
    lab.multipathd.command("reconfigure")
    wait_until(adopted, "the same after reconfigure", 60)
    assert [dm.device for dm in lab.snapshot().maps] == [attachment.device]
    for path in attachment.paths:
        marks = run("udevadm", "info", "--query=property", f"/dev/{path.device}")
        assert "DM_MULTIPATH_DEVICE_PATH=1" in marks, f"udev takes {path.device} for a bare disk"
    detach(properties)
    assert_nothing_left(lab)


def test_both_calls_are_idempotent(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    first = attach(properties)
    again = attach(properties)
    assert (again.path, again.wwid, again.map_existed) == (first.path, first.wwid, True)
    assert all(path.session_existed for path in again.paths)
    assert detach(properties).map_removed
    second = detach(properties)
    assert (second.map_removed, second.devices_removed, second.sessions_removed) == (False, 0, 0)
    assert_nothing_left(lab)


def test_paths_are_added_to_a_map_that_has_fewer(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd
) -> None:
    properties = lab.export(lab.volume(), lab.portals(4)).properties
    half = {
        **properties,
        "target_portals": properties["target_portals"][:2],
        "target_iqns": properties["target_iqns"][:2],
        "target_luns": properties["target_luns"][:2],
    }
    first = attach(half)
    whole = attach(properties)
    assert whole.path == first.path
    detach(properties)
    assert_nothing_left(lab)


def test_a_map_that_multipathd_makes_again_goes_too(lab: Lab, iscsid: Iscsid) -> None:
    """It may do so for an event of a disk that it has yet to handle when the map is removed. Here a
    disk is new to it, and the detach is held between the map's removal and the disks'.
    """
    lab.multipathd.start()
    properties = lab.export(lab.volume(), lab.portals(4)).properties
    attachment = attach(properties)
    lab.settle()  # multipathd takes only a disk that udev knows
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=openat"]
    command += ["-e", "inject=openat:delay_enter=6s"]
    for device in lab.snapshot().devices:
        command += ["-P", f"/sys/class/scsi_device/{device.hctl}/device/delete"]
    command += [sys.executable, "-m", "manypath", "disconnect", "--json", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(properties).encode())
        process.stdin.close()
        process.stdin = None
        wait_until(lambda: not lab.snapshot().maps, "the map is removed", TIMEOUT)
        device = attachment.paths[0].device
        run("multipathd", "del", "path", device, check=False)  # if it knows it yet
        lab.multipathd.command("add", "path", device)
        made = lab.snapshot()
        run("udevadm", "control", "--stop-exec-queue")  # multipathd is not to remove it itself
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
            left = lab.snapshot()
        finally:
            run("udevadm", "control", "--start-exec-queue")

    assert [(dm.kind, len(dm.members)) for dm in made.maps] == [("mpath", 4)]
    assert len(made.devices) == 4
    assert process.returncode == 0
    assert json.loads(output)["devices_removed"] == 4
    assert (left.sessions, left.devices, left.maps) == ((), (), ())


@pytest.mark.parametrize("iscsid", ["direct", "socket"], indirect=True)
def test_both_ways_to_run_iscsid(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    assert bool(iscsid.pid) == (iscsid.how == "direct")
    attach(properties)
    assert iscsid.pid
    detach(properties)
    assert_nothing_left(lab)


def test_iscsid_restarted_between_two_operations(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    attach(properties)
    detach(properties)
    iscsid.restart()
    attach(properties)
    detach(properties)
    assert_nothing_left(lab)


@pytest.mark.parametrize("count", [4, 16])
def test_logins_are_in_flight_together(lab: Lab, iscsid: Iscsid, count: int) -> None:
    properties = lab.export(lab.volume(), lab.portals(count)).properties
    attachment = attach(properties)
    begun = [path.times.login_begin for path in attachment.paths]
    ended = [path.times.login_end for path in attachment.paths]
    assert len(begun) == count
    assert max(begun) < min(ended), f"a login began after another one had ended: {begun} {ended}"
    detach(properties)
    assert_nothing_left(lab)


def test_sessions_of_a_shared_target_stay_for_the_other_volume(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd
) -> None:
    volumes = [lab.volume(), lab.volume()]
    export = lab.export(volumes, lab.portals(2), shape="shared")
    one, two = (export.connection_properties(volume) for volume in volumes)
    first, second = attach(one), attach(two)
    assert first.wwid != second.wwid
    assert {path.sid for path in first.paths} == {path.sid for path in second.paths}

    kept = detach(one)
    assert (kept.devices_removed, kept.sessions_removed, kept.sessions_kept) == (2, 0, 2)
    assert [dm.uuid for dm in lab.snapshot().maps] == [f"mpath-{second.wwid}"]
    assert detach(two).sessions_removed == 2
    assert_nothing_left(lab)


def test_a_session_made_by_iscsiadm_is_used(lab: Lab, iscsid: Iscsid) -> None:
    export = lab.export(lab.volume(), lab.portals(2))
    done = login(export.portals[0], export.iqns[0])
    assert done.returncode == 0, done.stdout
    attachment = attach(export.properties)
    assert [path.session_existed for path in attachment.paths] == [True, False]
    detach(export.properties)
    assert_nothing_left(lab)


def test_ipv6_portals_and_a_flat_lun(lab: Lab, iscsid: Iscsid) -> None:
    portals = [lab.portal(1, 6), lab.portal(2, 6), lab.portal(3, 4)]
    properties = lab.export(lab.volume(), portals, lun=300).properties
    attachment = attach(properties)
    assert len(attachment.paths) == 3
    spelled = {**properties, "target_portals": [p.upper() for p in properties["target_portals"]]}
    assert attach(spelled).path == attachment.path
    detach(spelled)
    assert_nothing_left(lab)


def test_a_map_in_use_is_refused_and_untouched(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd
) -> None:
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    attachment = attach(properties)
    user = os.open(attachment.path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(InUseError) as caught:
            detach(properties)
    finally:
        os.close(user)
    assert attachment.device in str(caught.value)
    state = lab.snapshot()
    assert (len(state.maps), len(state.devices), len(state.sessions)) == (1, 2, 2)
    detach(properties)
    assert_nothing_left(lab)


def test_written_data_reaches_the_volume_on_detach(lab: Lab, iscsid: Iscsid) -> None:
    """Through the page cache, not synced by the writer: the detach has to flush it."""
    volume = lab.volume()
    properties = lab.export(volume, lab.portals(2)).properties
    data = pattern("written back", MIB)
    with open(attach(properties).path, "r+b", buffering=0) as device:
        device.write(data)
    detach(properties)
    attachment = attach(properties)
    assert read_direct(attachment.path, length=MIB) == data
    detach(properties)
    assert_nothing_left(lab)


@pytest.mark.parametrize("how", ["reject", "drop"])
def test_io_survives_the_loss_of_a_portal(lab: Lab, iscsid: Iscsid, how: str) -> None:
    lab.multipathd.start()
    export = lab.export(lab.volume(), lab.portals(2))
    attachment = attach(export.properties)
    lab.cut(export.portals[0], how)
    data = pattern(how, MIB)
    write_direct(attachment.path, data)
    assert read_direct(attachment.path, length=MIB) == data
    lab.heal()

    def healed() -> bool:
        sessions = lab.snapshot().sessions
        return all(session.state == "LOGGED_IN" for session in sessions) and len(sessions) == 2

    wait_until(healed, "the session is back", 60)
    detach(export.properties)
    assert_nothing_left(lab)


def test_no_record_is_left_for_iscsiadm(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(1)).properties
    attach(properties)
    records = iscsiadm("-m", "node")
    assert records.returncode != 0, records.stdout
    detach(properties)
    assert_nothing_left(lab)
