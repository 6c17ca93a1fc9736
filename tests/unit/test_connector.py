# SPDX-License-Identifier: Apache-2.0
"""What a host tells Cinder about itself."""

from __future__ import annotations

import errno
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

from manypath import connector_properties
from manypath.errors import InvalidRequestError, PermissionDeniedError, SystemCallError

IQN = "iqn.1993-08.org.debian:01:6f0d"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "initiatorname.iscsi"
    path.write_text(f"InitiatorName={IQN}\n")
    return path


def initiator(file: Path) -> Any:
    return connector_properties(multipath=True, ip="192.0.2.1", initiator_file=file)["initiator"]


class FakeSocket:
    """Knows the source address for each family, or an errno."""

    sources: ClassVar[dict[int, str | int]]
    closed: ClassVar[int] = 0

    def __init__(self, family: int, kind: int) -> None:
        assert kind == socket.SOCK_DGRAM
        self.source = self.sources[family]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        type(self).closed += 1

    def connect(self, _: object) -> None:
        if isinstance(self.source, int):
            raise OSError(self.source, os.strerror(self.source))

    def getsockname(self) -> tuple[object, int]:
        return self.source, 5


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> type[FakeSocket]:
    class Sockets(FakeSocket):
        sources: ClassVar = {socket.AF_INET: errno.ENETUNREACH, socket.AF_INET6: errno.ENETUNREACH}

    monkeypatch.setattr(socket, "socket", Sockets)
    return Sockets


def test_all_keys(file: Path) -> None:
    """The spec, "Proposed change".

    'nova-compute should call Cinder initialize_connection API with a new 'multipath=True' optional
    key in 'connector' dictionary.'
    """
    found = connector_properties(multipath=True, ip="192.0.2.1", initiator_file=file)
    assert found == {
        "platform": platform.machine(),
        "os_type": "linux",
        "ip": "192.0.2.1",
        "host": socket.gethostname(),
        "multipath": True,
        "initiator": IQN,
    }
    assert json.loads(json.dumps(found)) == found


def test_without_multipath(file: Path) -> None:
    """The spec, "Proposed change".

    'When the 'multipath=False' is specified or the key is omitted, the API must return
    'target_portal'/'target_iqn'/'target_lun' set.'
    """
    found = connector_properties(
        multipath=False, ip="2001:DB8:0::1", host="node-7", initiator_file=str(file)
    )
    assert found["multipath"] is False
    assert found["host"] == "node-7"
    assert found["ip"] == "2001:db8::1"


@pytest.mark.parametrize("value", [None, 1, "True"])
def test_multipath_is_a_bool(file: Path, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"multipath .* is not a bool"):
        connector_properties(multipath=value, initiator_file=file)


@pytest.mark.parametrize("ip", ["", "node-7", "192.0.2.1:3260", "192.0.2.256", 5, b"1.2.3.4"])
def test_ip_is_numeric(file: Path, ip: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"ip .* is not a numeric address; give"):
        connector_properties(multipath=True, ip=ip, initiator_file=file)


@pytest.mark.parametrize("host", ["", 5, b"node"])
def test_host_is_a_name(file: Path, host: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"host .* is not a name"):
        connector_properties(multipath=True, ip="192.0.2.1", host=host, initiator_file=file)


@pytest.mark.parametrize(
    ("v4", "v6", "expected"),
    [
        ("192.0.2.9", "2001:db8::9", "192.0.2.9"),
        (errno.ENETUNREACH, "2001:db8::9", "2001:db8::9"),
        ("192.0.2.9", errno.EAFNOSUPPORT, "192.0.2.9"),
    ],
)
def test_default_ip(
    file: Path, sockets: type[FakeSocket], v4: str | int, v6: str | int, expected: str
) -> None:
    sockets.sources = {socket.AF_INET: v4, socket.AF_INET6: v6}
    assert connector_properties(multipath=True, initiator_file=file)["ip"] == expected
    assert sockets.closed in (1, 2)


def test_no_default_route(file: Path, sockets: type[FakeSocket]) -> None:
    with pytest.raises(SystemCallError, match=r"no default route .*give it as ip") as caught:
        connector_properties(multipath=True, initiator_file=file)
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize(
    "content",
    [
        f"InitiatorName={IQN}",
        f"InitiatorName={IQN}  \n",
        f"## DO NOT EDIT\n#InitiatorName=iqn.old:1\n\n  # more\nInitiatorName={IQN}\n",
        f"InitiatorName={IQN}\nInitiatorName=iqn.second:1\n",
        f"GenerateName=yes\nInitiatorName=\nInitiatorName={IQN}\nInitiatorAlias=x\n",
        f"  InitiatorName = {IQN}\r\n",
        f"# Rechnername: h\u00f6st\nInitiatorName={IQN}\n",
    ],
)
def test_initiator(file: Path, content: str) -> None:
    file.write_bytes(content.encode("latin-1"))
    assert initiator(file) == IQN


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "no line InitiatorName="),
        ("GenerateName=yes\n", "no line InitiatorName="),
        ("#InitiatorName=iqn.old:1\n", "no line InitiatorName="),
        ("InitiatorName=\n", "no line InitiatorName="),
        ("InitiatorName=host7\n", "'host7' is not an iSCSI name"),
        ("InitiatorName=IQN.1993-08.org.debian:01:6f0d\n", "begin with iqn."),
        ("InitiatorName=iqn.h\u00f6st:1\n", "is not an iSCSI name"),
    ],
)
def test_initiator_is_refused(file: Path, content: str, part: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidRequestError) as caught:
        initiator(file)
    assert part in str(caught.value)
    assert str(file) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(SystemCallError, match=r"none: No such file.*install open-iscsi") as caught:
        initiator(tmp_path / "none")
    assert caught.value.errno == errno.ENOENT


def test_unreadable_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(PermissionDeniedError, match="run as root") as caught:
        initiator(file)
    assert str(file) in str(caught.value)
    assert caught.value.errno == errno.EACCES


NO_PROCESS = """
import sys

def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from manypath import connector_properties
connector_properties(multipath=True, ip="192.0.2.1", initiator_file=sys.argv[1])
"""


def test_starts_no_process(file: Path) -> None:
    subprocess.run([sys.executable, "-c", NO_PROCESS, str(file)], check=True)
