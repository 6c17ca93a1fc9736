"""What os-brick 7.1.1 gets wrong on this ground, defect by defect, and what happens here."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

import manypath
from lab import Iscsid, Lab, Multipathd, run, wait_until
from lab.blockdev import pattern, read_direct, write_direct
from lab.holders import linear_map
from lab.iscsiadm import iscsiadm, login
from manypath import PathState
from manypath.errors import (
    InUseError,
    LogoutError,
    LunNotFoundError,
    ManypathError,
    OperationTimeoutError,
)

TIMEOUT = 60.0
MIB = 1 << 20


def attach(properties: dict[str, Any], **options: Any) -> manypath.Attachment:
    """Attach with every path, or the single one, usable."""
    attachment = manypath.connect(properties, **{"timeout": TIMEOUT, **options})
    assert {path.state for path in attachment.paths} <= {PathState.ACTIVE, PathState.UNUSED}
    return attachment


def assert_nothing_left(lab: Lab) -> None:
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def singles(properties: dict[str, Any]) -> dict[str, Any]:
    """What a driver answers that leaves the rest to discovery."""
    return {
        key: value
        for key, value in properties.items()
        if key not in ("target_portals", "target_iqns", "target_luns")
    }


def test_a_lun_that_is_a_string(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Defect A: attached with a LUN of "1", a detach succeeds and leaves disks, map and sessions,
    since it compares the string with a number. Here a LUN is a number from the start.
    """
    properties = lab.export(lab.volume(), lab.portals(2), lun=1).properties
    spelled = {**properties, "target_lun": "1", "target_luns": ["1", "1"]}
    attach(spelled)
    detachment = manypath.disconnect(spelled, timeout=TIMEOUT)
    assert detachment.map_removed
    assert (detachment.devices_removed, detachment.sessions_removed) == (2, 2)
    assert_nothing_left(lab)


@pytest.mark.parametrize("multipath", [False, True], ids=["single path", "multipath"])
def test_a_stale_discovery_record(lab: Lab, iscsid: Iscsid, multipath: bool) -> None:
    """Defect B: with an old discovery record of the portal that lists two neighbours and not the
    volume, its detach deletes the neighbours' disks, logs them out, and leaves the volume. Here no
    record is read, and a detach is about the target that was named.
    """
    (portal,) = lab.portals(1)
    near = [lab.export(lab.volume(), [portal], lun=0) for _ in range(2)]
    neighbours = [attach(singles(export.properties), multipath=multipath) for export in near]
    discover = ("-m", "discoverydb", "-t", "sendtargets", "-p", str(portal))
    assert iscsiadm(*discover, "-o", "new").returncode == 0
    record = iscsiadm(*discover, "--discover").stdout
    assert all(export.iqns[0] in record for export in near)
    last = lab.export(lab.volume(), [portal], lun=0)
    before = lab.snapshot()
    assert (len(before.sessions), len(before.devices)) == (2, 2)

    attach(singles(last.properties), multipath=multipath)
    manypath.disconnect(singles(last.properties), multipath=multipath, timeout=TIMEOUT)

    after = lab.snapshot()
    assert (after.sessions, after.devices) == (before.sessions, before.devices)
    assert [dm.uuid for dm in after.maps] == [dm.uuid for dm in before.maps]
    for attachment in neighbours:
        assert read_direct(attachment.path) == bytes(4096)
    for export in near:
        manypath.disconnect(singles(export.properties), multipath=multipath, timeout=TIMEOUT)
    assert_nothing_left(lab)


@pytest.mark.parametrize(
    ("family", "spellings"),
    [
        (4, ["10.99.1.1", "10.99.1.1:3260,1"]),
        (6, ["FD00:99:1::1", "[fd00:0099:0001:0:0:0:0:1]:3260", "fd00:99:1::1:3260"]),
    ],
    ids=["IPv4", "IPv6"],
)
def test_a_portal_in_another_spelling(
    lab: Lab, iscsid: Iscsid, family: Any, spellings: list[str]
) -> None:
    """Defect C: a portal without a port, or spelled otherwise than the session that exists, is
    logged in to for ever, under a lock of the whole host. Here portals are compared as addresses.
    """
    export = lab.export(lab.volume(), [lab.portal(1, family)])
    done = login(export.portals[0], export.iqns[0])
    assert done.returncode == 0, done.stdout
    (session,) = lab.snapshot().sessions
    for spelling in spellings:
        properties = {**export.properties, "target_portals": [spelling]}
        begun = time.monotonic()
        (path,) = attach(properties).paths
        assert (path.sid, path.session_existed) == (session.sid, True)
        assert len(lab.snapshot().sessions) == 1
        print(f"{spelling}: {time.monotonic() - begun:.2f} s")
    manypath.disconnect(properties, timeout=TIMEOUT)
    assert_nothing_left(lab)


@pytest.mark.parametrize("user_friendly_names", [False, True], ids=["wwid", "mpatha"])
def test_force_removes_the_map(lab: Lab, iscsid: Iscsid, user_friendly_names: bool) -> None:
    """Defect D: when the flush fails a forced detach deletes no map, because it asks for the map by
    the wrong kind of name, and says nothing. Here the map goes, found by its uuid.
    """
    lab.multipathd.configure(user_friendly_names=user_friendly_names)
    lab.multipathd.start()
    export = lab.export(lab.volume(), lab.portals(2))
    attachment = attach(export.properties)
    lab.settle()
    for portal in export.portals:
        lab.cut(portal)
    detachment = manypath.disconnect(export.properties, force=True, ignore_errors=True, timeout=30)
    assert detachment.map_removed
    assert attachment.device not in {dm.device for dm in lab.snapshot().maps}
    assert_nothing_left(lab)


@pytest.mark.parametrize("multipath", [True, False], ids=["multipath", "single path"])
def test_a_holder_that_is_no_multipath_map(lab: Lab, iscsid: Iscsid, multipath: bool) -> None:
    """Defect E: whatever dm device holds a path is returned as "the multipath", be it the logical
    volume of a guest. Here a map must have our uuid and a multipath table; any other holder means
    that the disk is in use.
    """
    export = lab.export(lab.volume(), lab.portals(2))
    attach(export.properties, multipath=False)
    (disk,) = lab.snapshot().devices
    with linear_map(f"/dev/{disk.name}", "guest-root", uuid="LVM-" + "x" * 64) as holder:
        with pytest.raises(InUseError, match="guest-root"):
            manypath.connect(export.properties, multipath=multipath, timeout=TIMEOUT)
        assert disk in lab.snapshot().devices
        assert lab.snapshot().maps == ()
        assert read_direct(holder) == bytes(4096)
    assert attach(export.properties).wwid == export.volumes[0].wwid
    manypath.disconnect(export.properties, timeout=TIMEOUT)
    assert_nothing_left(lab)


def test_an_encrypted_volume(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Defect F: when the link for an encrypted volume cannot be made, undoing the attach raises
    TypeError and everything stays. The link is the connector's business; connect() makes none, so
    "encrypted" changes nothing here, and an attach that fails is undone.
    """
    export = lab.export(lab.volume(), lab.portals(2))
    properties = {**export.properties, "encrypted": True}
    attachment = attach(properties)
    assert attachment.path == f"/dev/{attachment.device}"
    manypath.disconnect(properties, timeout=TIMEOUT)
    assert_nothing_left(lab)
    with pytest.raises(LunNotFoundError):
        manypath.connect({**properties, "target_luns": [77, 77]}, timeout=TIMEOUT)
    assert_nothing_left(lab)


@pytest.mark.parametrize("multipath", [True, False], ids=["multipath", "flag flipped"])
def test_extend_after_discovery(lab: Lab, iscsid: Iscsid, multipath: bool) -> None:
    """Defect G: of a volume that was discovered only the path through the portal named is
    rescanned, so its map cannot grow; nor does it if use_multipath was flipped meanwhile. Here the
    extend is about the map that is there, and its members.
    """
    volume = lab.volume(64)
    export = lab.export(volume, lab.portals(3), shape="shared")
    attachment = attach(singles(export.properties))
    assert len(attachment.paths) == 3
    volume.resize(96)
    extension = manypath.extend(singles(export.properties), multipath=multipath, timeout=TIMEOUT)
    assert (extension.device, extension.size_bytes) == (attachment.device, 96 * MIB)
    assert len(extension.paths) == 3
    write_direct(attachment.path, pattern("end"), offset=95 * MIB)
    manypath.disconnect(singles(export.properties), timeout=TIMEOUT)
    assert_nothing_left(lab)


@pytest.mark.parametrize("upper_case_session", [True, False])
def test_letter_case_of_an_ipv6_portal(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, upper_case_session: bool
) -> None:
    """Defect H: a detach under another letter case than the session's finds no disks; nothing is
    flushed nor removed, yet it logs out. Here it is the same portal.
    """
    volume = lab.volume()
    export = lab.export(volume, [lab.portal(1, 6), lab.portal(2, 6)])
    lower = export.properties
    upper = {**lower, "target_portals": [portal.upper() for portal in lower["target_portals"]]}
    made, asked = (upper, lower) if upper_case_session else (lower, upper)
    data = pattern("not flushed by the writer", MIB)
    with open(attach(made).path, "r+b", buffering=0) as device:
        device.write(data)
    detachment = manypath.disconnect(asked, timeout=TIMEOUT)
    assert detachment.map_removed
    assert (detachment.devices_removed, detachment.sessions_removed) == (2, 2)
    assert_nothing_left(lab)
    assert volume.file.read_bytes()[:MIB] == data


def test_a_logout_that_fails(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> None:
    """Defect I: after the first logout that fails the other sessions stay. Here all are tried. A
    restarted iscsid takes the sessions over one by one, in the order of their names in sysfs, and
    logs out of none that it does not have yet; the last one's portal is cut, and asked for first.
    """
    export = lab.export(lab.volume(), lab.portals(3))
    attach(export.properties)
    lab.settle()
    last = max(lab.snapshot().sessions, key=lambda session: f"session{session.sid}")
    (cut,) = (portal for portal in export.portals if portal.address == last.address)
    while export.properties["target_portals"][0] != str(cut):
        export.portals.append(export.portals.pop(0))
        export.tpgs.append(export.tpgs.pop(0))
    properties = export.properties
    lab.cut(cut)
    iscsid.restart()

    def taken_over() -> bool:
        sockets = run("ss", "-Htnp", "state", "established").splitlines()
        return sum('"iscsid"' in line for line in sockets) == 2

    wait_until(taken_over, "iscsid has the two other sessions", 60)
    # or iscsid, which tries to reach the portal, has not answered in time
    with pytest.raises((LogoutError, OperationTimeoutError)) as caught:
        manypath.disconnect(properties, timeout=8)
    assert f"session {last.sid} " in str(caught.value)
    state = lab.snapshot()
    assert (state.devices, state.maps) == ((), ())
    assert [session.sid for session in state.sessions] == [last.sid]
    lab.heal()

    def detached() -> bool:
        with suppress(ManypathError):
            manypath.disconnect(properties, timeout=8)
        return not lab.snapshot().sessions

    wait_until(detached, "the same call logs the last one out", 60)
    assert_nothing_left(lab)
