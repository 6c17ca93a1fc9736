# SPDX-License-Identifier: Apache-2.0
"""The command line on a fake handle."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from fake_core import FakeHandle, make_path
from manypath import Disk, Inventory, Map, PathState, Portal, Session, Target, cli
from manypath.errors import InUseError, PortalNoAnswerError, PortalRefusedError

PROPERTIES = {
    "target_portals": ["192.0.2.1:3260", "192.0.2.20:3260"],
    "target_iqns": ["iqn.2010-10.org.example:1"],
    "target_lun": 1,
}
TARGETS = tuple(
    Target(Portal.parse(portal), "iqn.2010-10.org.example:1", 1)
    for portal in PROPERTIES["target_portals"]  # type: ignore[attr-defined]
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "volume.json"
    path.write_text(json.dumps(PROPERTIES))
    return str(path)


def test_connect(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["connect", file, "--timeout", "5", "--min-paths", "2"]) == 0
    assert handle.calls[0][2:] == (5000, 2)
    out, err = capsys.readouterr()
    assert out == (
        "/dev/dm-3  1 GiB  wwid 36001405aaaa\n"
        "2 of 2 paths active, map made, multipathd running\n"
        "\n"
        "PORTAL           IQN                        LUN  DEVICE  HCTL     SESSION  STATE     MS\n"
        "192.0.2.1:3260   iqn.2010-10.org.example:1    1  sda     2:0:0:1        1  active  27.5\n"
        "192.0.2.20:3260  iqn.2010-10.org.example:1    1  sda     2:0:0:1        1  active  27.5\n"
        "\n"
        "MS IN  QUEUE  PREPARE  LOGIN  SCAN  DEVICE  IDENTITY  MAP  TOTAL\n"
        "         0.0      1.0   20.0   3.0     4.0       0.5  6.0   34.5\n"
    )
    assert err == "warning: from the core\n"


def test_connect_json(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["connect", "--json", file]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["path"] == "/dev/dm-3"
    assert err == ""


def test_standard_input(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({"data": PROPERTIES})))
    assert cli.main(["disconnect", "-"]) == 0
    assert handle.calls[0] == ("detach", TARGETS, 60000)
    out = capsys.readouterr().out
    assert out.startswith(
        "removed the map, disks: 4, sessions: 3; sessions kept for other volumes: 1\n"
    )


def test_list(
    handle: FakeHandle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = Inventory(
        sessions=(
            Session(3, 2, "iqn.a:1", Portal(ip_address("2001:db8::1")), "LOGGED_IN"),
            Session(12, 3, "iqn.a:2", None, "FAILED"),
        ),
        disks=(
            Disk("sda", 3, "2:0:0:1", 1, "running", 3 << 29, "dm-0", PathState.ACTIVE),
            Disk("sdb", 12, "3:0:0:0", 0, "blocked", 0, None, None),
        ),
        maps=(Map("dm-0", "mpatha", "36001405", 3 << 29, 0, 2, 1),),
        maps_known=True,
    )
    monkeypatch.setattr(handle, "inventory", lambda: inventory)
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == (
        "SESSION  PORTAL              IQN      STATE\n"
        "      3  [2001:db8::1]:3260  iqn.a:1  LOGGED_IN\n"
        "     12  -                   iqn.a:2  FAILED\n"
        "\n"
        "DEVICE  HCTL     SESSION  LUN     SIZE  STATE    MAP   PATH\n"
        "sda     2:0:0:1        3    1  1.5 GiB  running  dm-0  active\n"
        "sdb     3:0:0:0       12    0      0 B  blocked  -     -\n"
        "\n"
        "MAP   NAME    WWID         SIZE  OPEN  PATHS  ACTIVE\n"
        "dm-0  mpatha  36001405  1.5 GiB     0      2       1\n"
    )
    assert cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["disks"][1]["map"] is None


def test_list_of_nothing(handle: FakeHandle, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "no iSCSI sessions" in out
    assert "no iSCSI disks" in out
    assert "multipath maps not known" in out


def test_failure(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused = PortalRefusedError("connection refused", portal=TARGETS[0].portal, errno=111)
    handle.error = PortalNoAnswerError(
        "no portal answered within 5 s",
        phase="login",
        retryable=True,
        paths=(
            make_path(TARGETS[0], state=PathState.FAILED, error=refused),
            make_path(TARGETS[1], state=PathState.PENDING),
        ),
    )
    assert cli.main(["connect", file]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "manypath: connect failed: no portal answered within 5 s\n"
        "  192.0.2.1:3260 iqn.2010-10.org.example:1 LUN 1: failed: connection refused\n"
        "  192.0.2.20:3260 iqn.2010-10.org.example:1 LUN 1: pending\n"
    )
    assert cli.main(["connect", file, "--json"]) == 1
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["type"] == "PortalNoAnswerError"
    assert error["code_name"] == "NO_ANSWER"
    assert error["paths"][0]["error"]["errno"] == 111
    assert err == ""


def test_disconnect_fails(
    handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handle.error = InUseError("dm-3 is open")
    assert cli.main(["disconnect", file]) == 1
    assert capsys.readouterr().err == "manypath: disconnect failed: dm-3 is open\n"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100000, "is not JSON"),
        (b"[]", "not a dict"),
        (b"{}", "target_portal is missing"),
    ],
)
def test_bad_input(
    handle: FakeHandle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    part: str,
) -> None:
    path = tmp_path / "volume.json"
    path.write_bytes(content)
    assert cli.main(["connect", str(path)]) == 2
    assert part in capsys.readouterr().err
    assert cli.main(["disconnect", str(path), "--json"]) == 2
    assert part in json.loads(capsys.readouterr().out)["error"]["message"]
    assert handle.calls == []


def test_missing_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["connect", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_interrupted(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    handle.error = KeyboardInterrupt()
    assert cli.main(["connect", file]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["nothing"], ["connect"], ["connect", "-", "--timeout", "x"], ["list", "--timeout", "1"]],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: manypath" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "90000"])
def test_timeout_out_of_range(
    handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    assert cli.main(["connect", file, f"--timeout={value}"]) == 2
    assert "timeout" in capsys.readouterr().err


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manypath", "--help"], capture_output=True, text=True, check=True
    )
    assert "connect" in done.stdout
    assert done.stdout.isascii()
