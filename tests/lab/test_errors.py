"""What cannot work ends in a typed error, in time, with nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import manypath
from lab import Iscsid, Lab, run
from lab.iscsiadm import login
from manypath import PathState, errors

TIMEOUT = 12.0


#: A silent portal: iscsid gives up first, or our own timeout passes.
SILENT = (errors.PortalNoAnswerError, errors.OperationTimeoutError)


def fails(
    properties: dict[str, Any],
    kind: type[Exception] | tuple[type[Exception], ...],
    within: float = TIMEOUT,
) -> Any:
    """Attach, expect the error, and that it comes within the timeout plus one second."""
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        manypath.connect(properties, timeout=within)
    took = time.monotonic() - begun
    assert took < within + 1, f"the error took {took:.1f} s of {within} s"
    print(f"{type(caught.value).__name__} after {took:.2f} s: {caught.value}")
    return caught.value


def in_child(code: str, *arguments: str, user: int | None = None) -> str:
    """Run Python in a process of its own; what it prints."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CONNECT = """
import json, sys, manypath
try:
    manypath.connect(json.loads(sys.argv[1]), timeout=10)
except manypath.ManypathError as error:
    print(error.code_name, error)
else:
    print("attached")
"""


def connect_in_child(properties: dict[str, Any], user: int | None = None) -> str:
    import json

    return in_child(CONNECT, json.dumps(properties), user=user)


def test_iscsid_not_running(lab: Lab) -> None:
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    error = fails(properties, errors.IscsidDownError)
    assert "iscsid" in str(error)
    assert error.retryable


def test_not_root(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(1)).properties
    answer = connect_in_child(properties, user=65534)
    assert answer.startswith("PERMISSION"), answer


@pytest.fixture
def no_multipath_target() -> Iterator[None]:
    """A kernel that cannot load dm_multipath."""
    rule = Path("/etc/modprobe.d/test-no-multipath.conf")
    rule.write_text("install dm_multipath /bin/false\nblacklist dm_multipath\n")
    run("modprobe", "-r", "dm_round_robin", "dm_service_time", "dm_queue_length", check=False)
    run("modprobe", "-r", "dm_multipath")
    yield
    rule.unlink()
    run("modprobe", "-a", "dm_multipath", "dm_round_robin", "dm_service_time")


def test_no_multipath_in_the_kernel(lab: Lab, iscsid: Iscsid, no_multipath_target: None) -> None:
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    answer = connect_in_child(properties)
    assert answer.startswith("NO_MULTIPATH"), answer
    assert "dm_multipath" in answer


def test_lun_does_not_exist(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(4)).properties
    error = fails({**properties, "target_luns": [7] * 4}, errors.LunNotFoundError)
    assert "LUN 7" in str(error)
    assert [path.state for path in error.paths] == [PathState.FAILED] * 4


def test_lun_does_not_exist_in_a_session_that_was_there(lab: Lab, iscsid: Iscsid) -> None:
    export = lab.export(lab.volume(), lab.portals(1))
    assert login(export.portals[0], export.iqns[0]).returncode == 0
    before = lab.snapshot().sessions
    fails({**export.properties, "target_luns": [7]}, errors.LunNotFoundError)
    assert [s.sid for s in lab.snapshot().sessions] == [s.sid for s in before]
    manypath.disconnect(export.properties, timeout=TIMEOUT)


def test_one_lun_missing_leaves_the_others(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(4)).properties
    attachment = manypath.connect({**properties, "target_luns": [1, 1, 7, 1]}, timeout=TIMEOUT)
    states = [path.state for path in attachment.paths]
    assert states == [PathState.ACTIVE, PathState.ACTIVE, PathState.FAILED, PathState.ACTIVE]
    assert isinstance(attachment.paths[2].error, errors.LunNotFoundError)
    assert len(lab.snapshot().sessions) == 3, "the session made for nothing is logged out"
    manypath.disconnect(properties, timeout=TIMEOUT)


def test_a_portal_without_a_listener(lab: Lab, iscsid: Iscsid) -> None:
    portals = lab.portals(2)
    properties = lab.export(lab.volume(), portals).properties
    nobody = [f"{portal.address}:3999" for portal in portals]
    error = fails({**properties, "target_portals": nobody}, errors.PortalRefusedError)
    assert "refuses" in str(error)


@pytest.mark.parametrize("how", ["reject", "drop"])
def test_all_portals_cut(lab: Lab, iscsid: Iscsid, how: Any) -> None:
    portals = lab.portals(4)
    properties = lab.export(lab.volume(), portals).properties
    for portal in portals:
        lab.cut(portal, how)
    error = fails(properties, errors.PortalRefusedError if how == "reject" else SILENT, within=8)
    assert len(error.paths) == 4


@pytest.mark.parametrize("how", ["reject", "drop"])
def test_one_of_four_portals_cut(lab: Lab, iscsid: Iscsid, how: Any) -> None:
    portals = lab.portals(4)
    properties = lab.export(lab.volume(), portals).properties
    lab.cut(portals[1], how)
    attachment = manypath.connect(properties, timeout=20)
    active = [path.state is PathState.ACTIVE for path in attachment.paths]
    assert active == [True, False, True, True]
    assert attachment.paths[1].error is not None
    print(f"{how}: {attachment.timings.total:.2f} s, {attachment.paths[1].state}")
    lab.heal()
    manypath.disconnect(properties, timeout=TIMEOUT)


def test_login_rejected(lab: Lab, iscsid: Iscsid) -> None:
    export = lab.export(lab.volume(), lab.portals(2), access="not_us")
    error = fails(export.properties, errors.LoginError)
    assert error.iscsid_code == 24  # ISCSI_ERR_LOGIN_AUTH_FAILED: LIO answers 0202
    assert not error.retryable


def test_unknown_target(lab: Lab, iscsid: Iscsid) -> None:
    properties = lab.export(lab.volume(), lab.portals(1)).properties
    wrong = {**properties, "target_iqns": ["iqn.2026-11.org.manypath.target:nobody"]}
    # LIO answers 0301, service unavailable, so iscsid tries until its timeout
    fails(wrong, SILENT)


def test_two_disks_in_one_request_are_refused(lab: Lab, iscsid: Iscsid) -> None:
    volumes = [lab.volume(), lab.volume()]
    exports = [lab.export(volume, [lab.portal(i + 1)]) for i, volume in enumerate(volumes)]
    mixed = {
        "target_portals": [str(export.portals[0]) for export in exports],
        "target_iqns": [export.iqns[0] for export in exports],
        "target_luns": [1, 1],
    }
    error = fails(mixed, errors.IdentityError)
    assert all(volume.wwid in str([p.error for p in error.paths]) for volume in volumes)


def test_the_odd_disk_is_kept_out(lab: Lab, iscsid: Iscsid) -> None:
    right, wrong = lab.volume(), lab.volume()
    export, other = lab.export(right, lab.portals(2)), lab.export(wrong, [lab.portal(3)])
    mixed = {
        "target_portals": [str(p) for p in (*export.portals, *other.portals)],
        "target_iqns": [*export.iqns, *other.iqns],
        "target_luns": [1, 1, 1],
    }
    attachment = manypath.connect(mixed, timeout=TIMEOUT)
    assert attachment.wwid == right.wwid
    assert isinstance(attachment.paths[2].error, errors.IdentityError)
    assert len(lab.snapshot().maps[0].members) == 2
    manypath.disconnect(mixed, timeout=TIMEOUT)
