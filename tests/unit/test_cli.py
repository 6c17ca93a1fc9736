# SPDX-License-Identifier: Apache-2.0
"""The command line on a fake handle."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from fake_core import FakeHandle, make_detachment, make_path
from manypath import (
    Credentials,
    Discovered,
    DiscoveredTarget,
    Disk,
    Flush,
    Inventory,
    Map,
    NamedPortal,
    PathState,
    Portal,
    Session,
    Target,
    cli,
    connector,
    operations,
)
from manypath.errors import (
    AuthenticationError,
    InUseError,
    InvalidRequestError,
    LogoutError,
    PortalNoAnswerError,
    PortalRefusedError,
)

PROPERTIES = {
    "target_portals": ["192.0.2.1:3260", "192.0.2.20:3260"],
    "target_iqns": ["iqn.2010-10.org.example:1"],
    "target_lun": 1,
}
TARGETS = tuple(
    Target(Portal.parse(portal), "iqn.2010-10.org.example:1", 1)
    for portal in PROPERTIES["target_portals"]  # type: ignore[attr-defined]
)


CHAP = {"auth_method": "CHAP", "auth_username": "alice", "auth_password": "xyzzy"}
DISCOVERY_CHAP = {f"discovery_{key}": value for key, value in CHAP.items()}


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path, PROPERTIES)


def write(directory: Path, value: object) -> str:
    path = directory / "volume.json"
    path.write_text(json.dumps(value))
    return str(path)


def test_connect(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["connect", file, "--timeout", "5", "--min-paths", "2"]) == 0
    _, _, timeout_ms, min_paths = handle.calls[0]
    assert 4900 < timeout_ms <= 5000
    assert min_paths == 2
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


def test_connect_single(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["connect", file, "--single"]) == 0
    assert handle.options["single_path"] is True
    first, second = capsys.readouterr().out.splitlines()[:2]
    assert first.startswith("/dev/sda  1 GiB")
    assert second == "2 of 2 paths active, no map"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--single"], {"multipath": False}),
        (["--strict"], {"strict": True}),
        (["--wwid", "3600", "--serial", "4711"], {"wwid": "3600", "serial": "4711"}),
    ],
)
def test_connect_options(
    monkeypatch: pytest.MonkeyPatch, file: str, arguments: list[str], expected: dict[str, object]
) -> None:
    def connect(properties: object, **options: object) -> None:
        assert properties == PROPERTIES
        usual = {"multipath": True, "strict": False, "timeout": 60.0, "min_paths": 1}
        assert options == {**usual, "wwid": None, "serial": None, **expected}
        raise InUseError("enough")

    monkeypatch.setattr(operations, "connect", connect)
    assert cli.main(["connect", file, *arguments]) == 1


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
    assert handle.calls[0][:2] == ("detach", TARGETS)
    out = capsys.readouterr().out
    assert out.startswith(
        "removed the map, disks: 4, sessions: 3; sessions kept for other volumes: 1; flush: done\n"
    )


def test_disconnect_with_force(
    handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = (InUseError("dm-3 is in use"), LogoutError("session 7 stays"))
    made = make_detachment(map_removed=False, flush=Flush.FAILED, errors=errors)
    handle.error = InUseError("dm-3 is in use", detachment=made)
    assert cli.main(["disconnect", "--force", file]) == 1
    assert handle.options["force"]
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "manypath: disconnect failed: dm-3 is in use\n"
        "  removed no map, disks: 4, sessions: 3; sessions kept for other volumes: 1; "
        "flush: failed\n"
        "  session 7 stays\n"
    )
    assert cli.main(["disconnect", "--force", "--ignore-errors", file]) == 0
    out, err = capsys.readouterr()
    assert "flush: failed\n" in out
    assert err == "  dm-3 is in use\n  session 7 stays\n"
    assert cli.main(["disconnect", "--force", "--ignore-errors", "--json", file]) == 0
    assert len(json.loads(capsys.readouterr().out)["errors"]) == 2


def test_extend(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["extend", file, "--size", str(3 << 29), "--timeout", "5"]) == 0
    name, targets, timeout_ms = handle.calls[0]
    assert (name, targets) == ("extend", TARGETS)
    assert 4900 < timeout_ms <= 5000
    assert handle.options == {"size_bytes": 3 << 29}
    out, err = capsys.readouterr()
    assert out == (
        "/dev/dm-3  1 GiB before, 1.5 GiB now  wwid 36001405aaaa\n"
        "2 of 2 paths active\n"
        "\n"
        "PORTAL           IQN                        LUN  DEVICE  HCTL     SESSION  STATE     MS\n"
        "192.0.2.1:3260   iqn.2010-10.org.example:1    1  sda     2:0:0:1        1  active  27.5\n"
        "192.0.2.20:3260  iqn.2010-10.org.example:1    1  sda     2:0:0:1        1  active  27.5\n"
        "\n"
        "MS IN  QUEUE  PREPARE  RESCAN  RESIZE  TOTAL\n"
        "         0.0      1.0    20.0     3.0   24.5\n"
    )
    assert err == "warning: from the core\n"


def test_extend_json(handle: FakeHandle, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["extend", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["old_size_bytes"], found["size_bytes"]) == (1 << 30, 3 << 29)
    assert found["timings"]["resize"] == 0.003
    assert handle.options == {"size_bytes": 0}
    assert cli.main(["extend", file, "--size", "0"]) == 2


def test_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, {**PROPERTIES, **CHAP})
    assert cli.main(["plan", file]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "log in to each, CHAP as alice\n"
        "\n"
        "PORTAL           IQN                        LUN\n"
        "192.0.2.1:3260   iqn.2010-10.org.example:1    1\n"
        "192.0.2.20:3260  iqn.2010-10.org.example:1    1\n"
    )
    assert err == ""
    assert cli.main(["plan", "--single", file]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("use the first that serves the volume, CHAP as alice\n\nPORTAL")


def test_plan_discovers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {
        "target_portals": ["192.0.2.1", "Storage.example"],
        "target_iqn": "iqn.2010-10.org.example:1",
        "target_lun": 1,
        **CHAP,
        "auth_username_in": "bob",
        "auth_password_in": "plugh",
        **DISCOVERY_CHAP,
        "discovery_auth_username": "two\nlines",
    }
    assert cli.main(["plan", write(tmp_path, given)]) == 0
    assert capsys.readouterr().out == (
        "discover through 192.0.2.1:3260, CHAP as 'two\\nlines'\n"
        "if nobody answers, discover through storage.example:3260, CHAP as 'two\\nlines'\n"
        "log in to iqn.2010-10.org.example:1 on each of its portals, LUN 1, mutual CHAP as alice\n"
    )
    given = {"target_portal": "192.0.2.1", "target_lun": 1}
    assert cli.main(["plan", write(tmp_path, given)]) == 0
    assert capsys.readouterr().out == (
        "discover through 192.0.2.1:3260\n"
        "log in to the one target found on each of its portals, LUN 1\n"
    )
    assert cli.main(["plan", write(tmp_path, given), "--single"]) == 0
    assert capsys.readouterr().out == (
        "discover through 192.0.2.1:3260\n"
        "use the one target found on the first of its portals, LUN 1\n"
    )
    given["target_iqn"] = "iqn.2010-10.org.example:1"
    given["target_portals"] = ["192.0.2.1"]
    assert cli.main(["plan", write(tmp_path, given), "--single"]) == 0
    assert capsys.readouterr().out.endswith(
        "\nuse iqn.2010-10.org.example:1 on the first of its portals, LUN 1\n"
    )


def test_plan_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, {"connection_info": {"data": {**PROPERTIES, **CHAP}}})
    assert cli.main(["plan", file, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "xyzzy" not in out
    assert json.loads(out) == {
        "multipath": True,
        "targets": [
            {"portal": portal, "iqn": "iqn.2010-10.org.example:1", "lun": 1}
            for portal in PROPERTIES["target_portals"]  # type: ignore[attr-defined]
        ],
        "discovery": None,
        "warnings": [],
        "chap_username": "alice",
        "discovery_chap_username": None,
    }
    assert err == ""


def test_plan_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, {**PROPERTIES, "target_luns": [1, 2, 3], "auth_password": "xyzzy"})
    assert cli.main(["plan", file]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: target_portals, target_iqns and target_luns have 2, 1 and 3")
    assert second == (
        "warning: auth_password given, but auth_method is not 'CHAP'; "
        "the login is made without CHAP"
    )
    assert cli.main(["plan", file, "--strict"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("manypath: plan failed: target_portals, target_iqns and target_luns")


def test_discover(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def discover(portal: object, **options: object) -> Discovered:
        assert portal == "storage.example"
        assert options == {"timeout": 5.0, "initiator": "iqn.a:me", "chap": None}
        return Discovered(
            NamedPortal("storage.example"),
            (
                DiscoveredTarget("iqn.a:1", Portal.parse("192.0.2.1"), 1),
                DiscoveredTarget("iqn.a:22", NamedPortal("b.example", 860), None),
            ),
        )

    monkeypatch.setattr(operations, "discover", discover, raising=False)
    arguments = ["discover", "storage.example", "--timeout", "5", "--initiator", "iqn.a:me"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == (
        "IQN       PORTAL          TAG\n"
        "iqn.a:1   192.0.2.1:3260    1\n"
        "iqn.a:22  b.example:860     -\n"
    )
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "portal": "storage.example:3260",
        "targets": [
            {"iqn": "iqn.a:1", "portal": "192.0.2.1:3260", "tag": 1},
            {"iqn": "iqn.a:22", "portal": "b.example:860", "tag": None},
        ],
    }


def test_discover_with_chap(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def discover(portal: object, *, chap: Credentials, **_: object) -> Discovered:
        assert (chap.username, chap.password) == ("alice", "xyzzy")
        raise AuthenticationError("the target refuses us")

    monkeypatch.setattr(operations, "discover", discover, raising=False)
    file = write(tmp_path, DISCOVERY_CHAP)
    assert cli.main(["discover", "192.0.2.1", "--chap-file", file]) == 1
    assert capsys.readouterr().err == "manypath: discover failed: the target refuses us\n"


def test_discover_finds_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Discovered(Portal.parse("192.0.2.1"), ())
    monkeypatch.setattr(operations, "discover", lambda *_, **__: found, raising=False)
    assert cli.main(["discover", "192.0.2.1"]) == 0
    assert capsys.readouterr().out == "no targets at 192.0.2.1:3260\n"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (json.dumps(CHAP), "does not ask for CHAP"),
        ("{}", "set discovery_auth_method to 'CHAP'"),
        (json.dumps({**DISCOVERY_CHAP, "discovery_auth_method": None}), "discovery_auth_method"),
        (json.dumps({**DISCOVERY_CHAP, "discovery_auth_username": ""}), "is empty"),
        ('{"discovery_auth_password": "xyzzy', "is not JSON"),
        ('{"discovery_auth_password": "xyzzy\udcff"}', "is not JSON"),
        ('"xyzzy"', "not a dict"),
    ],
)
def test_bad_chap_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, part: str
) -> None:
    path = tmp_path / "chap.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert cli.main(["discover", "192.0.2.1", "--chap-file", str(path)]) == 2
    out, err = capsys.readouterr()
    assert part in err
    assert "xyzzy" not in out + err


def test_connector(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[object] = []

    def answer(**options: object) -> dict[str, Any]:
        asked.append(options)
        return {"multipath": options["multipath"]}

    monkeypatch.setattr(connector, "connector_properties", answer)
    assert cli.main(["connector"]) == 0
    assert json.loads(capsys.readouterr().out) == {"multipath": True}
    assert cli.main(["connector", "--single", "--ip", "192.0.2.1", "--host", "node"]) == 0
    assert json.loads(capsys.readouterr().out) == {"multipath": False}
    assert asked == [
        {"multipath": True, "ip": None, "host": None},
        {"multipath": False, "ip": "192.0.2.1", "host": "node"},
    ]


def test_connector_fails_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise InvalidRequestError("no")

    monkeypatch.setattr(connector, "connector_properties", refuse)
    assert cli.main(["connector"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "no"


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
    refused = PortalRefusedError("connection refused", portal=Portal.parse("192.0.2.1"), errno=111)
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
    [
        [],
        ["nothing"],
        ["connect"],
        ["connect", "-", "--timeout", "x"],
        ["list", "--timeout", "1"],
        ["plan"],
        ["discover"],
        ["discover", "192.0.2.1", "--password", "xyzzy"],
    ],
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
