# SPDX-License-Identifier: Apache-2.0
"""The fake iscsid has the manners that facts about the real one describe."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fake.iscsid import (
    INAME,
    LOGIN,
    LOGOUT,
    REPLY_SIZE,
    SESSION_INFO,
    STATS,
    Answer,
    Crash,
    Deny,
    Drop,
    FakeIscsid,
    Garbage,
    Hang,
    Layout,
    Mute,
    Request,
    Reset,
    Session,
    Truncate,
    Wedge,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 16104
_names = itertools.count()


def new_name() -> str:
    return f"mp-fake-test-{os.getpid()}-{next(_names)}"


@pytest.fixture
def iscsid() -> Iterator[FakeIscsid]:
    with FakeIscsid(new_name()) as fake:
        yield fake


def connect(fake: FakeIscsid) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(5)
    try:
        client.connect(b"\0" + fake.name.encode())
    except OSError:
        client.close()
        raise
    return client


def header(command: int, sid: int = 0, size: int = SIZE) -> bytes:
    return struct.pack("=IIi", command, 0, sid).ljust(size, b"\0")


def login(size: int = SIZE, **values: Any) -> bytes:
    """A LOGIN made from the layout file, for the few fields that these tests look at."""
    layout = Layout.for_size(size)
    assert layout is not None
    every: dict[str, Any] = {
        "target_name": "iqn.2010-10.org.openstack:v1",
        "address": "192.0.2.1",
        "port": 3260,
        "iface_name": "default",
    } | values
    raw = bytearray(header(LOGIN, size=size))
    for name, value in every.items():
        offset, width = layout.slots[name]
        if isinstance(value, int):
            raw[offset : offset + width] = value.to_bytes(width, sys.byteorder, signed=value < 0)
        else:
            data = value if isinstance(value, bytes) else value.encode()
            raw[offset : offset + len(data)] = data
    return bytes(raw)


def collect(client: socket.socket) -> tuple[bytes, str]:
    """All bytes until the end, and how it ended."""
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        return data, "reset"
    except TimeoutError:
        return data, "timeout"
    return data, "eof"


def ask(fake: FakeIscsid, request: bytes, *, half_close: bool = True) -> tuple[bytes, str]:
    with connect(fake) as client:
        client.sendall(request)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return collect(client)


def error_of(reply: bytes) -> int:
    assert len(reply) == REPLY_SIZE
    return int(struct.unpack_from("=Ii", reply)[1])


@pytest.mark.parametrize("size", [5144, 8392, 12856, 16104, 16112, 16136])
def test_right_size_is_answered_and_ends_cleanly(size: int) -> None:
    with FakeIscsid(new_name(), request_size=size) as fake:
        reply, end = ask(fake, header(INAME, size=size))
    assert end == "eof"
    assert struct.unpack_from("=Ii", reply) == (INAME, 0)
    assert reply[8:].rstrip(b"\0") == b"iqn.2016-04.com.open-iscsi:fake"
    assert fake.requests[0].eof
    assert fake.requests[0].uid == os.geteuid()
    assert fake.requests[0].pid == os.getpid()


def test_too_short_gets_nothing(iscsid: FakeIscsid) -> None:
    assert ask(iscsid, header(INAME, size=16088)) == (b"", "eof")
    assert iscsid.requests[0].outcome == "too short"
    assert iscsid.requests[0].size == 16088
    assert not iscsid.blocked


def test_too_long_gets_an_answer_and_a_reset(iscsid: FakeIscsid) -> None:
    reply, end = ask(iscsid, header(INAME, size=16112))
    assert (len(reply), end) == (REPLY_SIZE, "reset")
    assert iscsid.requests[0].extra


def test_ascending_probe_finds_the_size() -> None:
    sizes = [16080, 16088, 16104, 16112, 16128, 16136]
    with FakeIscsid(new_name(), request_size=16112) as fake:
        ends = [(len(r), e) for r, e in (ask(fake, header(INAME, size=s)) for s in sizes)]
    assert ends == [(0, "eof")] * 3 + [(REPLY_SIZE, "eof")] + [(REPLY_SIZE, "reset")] * 2


def test_too_short_and_not_ended_blocks_the_daemon(iscsid: FakeIscsid) -> None:
    with connect(iscsid) as bad, connect(iscsid) as good:
        bad.sendall(header(INAME, size=16088))
        good.sendall(header(INAME))
        good.settimeout(0.7)
        assert collect(good) == (b"", "timeout")
        assert iscsid.blocked
        bad.shutdown(socket.SHUT_WR)
        good.settimeout(5)
        assert len(collect(good)[0]) == REPLY_SIZE
    assert not iscsid.blocked


def test_missing_half_close_is_seen(iscsid: FakeIscsid) -> None:
    ask(iscsid, header(INAME), half_close=False)
    ask(iscsid, header(INAME))
    assert [request.eof for request in iscsid.requests] == [False, True]


@pytest.mark.parametrize("size", [8392, 16104, 16136])
def test_login_is_decoded(size: int) -> None:
    with FakeIscsid(new_name(), request_size=size) as fake:
        raw = login(size, password=b"a\0b", password_length=3, tpgt=-1, multiple=1)
        assert error_of(ask(fake, raw)[0]) == 0
    fields = fake.of(LOGIN)[0].fields
    assert fields is not None
    assert fields["target_name"] == "iqn.2010-10.org.openstack:v1"
    assert fields["address"] == "192.0.2.1"
    assert fields["port"] == 3260
    assert fields["tpgt"] == -1
    assert fields["password"] == b"a\0b"
    assert fields["password_in"] == b""
    assert fields["multiple"] == 1
    assert fields["chap_algs"] == [0] * 5


def test_life_of_a_session(iscsid: FakeIscsid) -> None:
    seen: list[tuple[str, int]] = []
    iscsid.on_login = lambda session: seen.append(("in", session.sid))
    iscsid.on_logout = lambda session: seen.append(("out", session.sid))
    assert error_of(ask(iscsid, login())[0]) == 0
    assert error_of(ask(iscsid, login())[0]) == 15
    assert error_of(ask(iscsid, login(multiple=1))[0]) == 0
    assert error_of(ask(iscsid, login(address="192.0.2.2"))[0]) == 0
    info, _ = ask(iscsid, header(SESSION_INFO, sid=1))
    assert struct.unpack_from("=Iiii", info) == (SESSION_INFO, 0, 0, 3)
    assert error_of(ask(iscsid, header(STATS, sid=1))[0]) == 0
    assert error_of(ask(iscsid, header(LOGOUT, sid=1))[0]) == 0
    assert error_of(ask(iscsid, header(LOGOUT, sid=1))[0]) == 2
    assert error_of(ask(iscsid, header(SESSION_INFO, sid=1))[0]) == 2
    assert seen == [("in", 1), ("in", 2), ("in", 3), ("out", 1)]
    assert error_of(ask(iscsid, header(99))[0]) == 16


def test_hook_can_fail_a_login(iscsid: FakeIscsid) -> None:
    iscsid.on_login = lambda _session: 24
    assert error_of(ask(iscsid, login())[0]) == 24
    assert iscsid.sessions == {}


def test_hook_runs_before_the_answer(iscsid: FakeIscsid) -> None:
    done = threading.Event()

    def slow(session: Session) -> None:
        assert not session.up
        time.sleep(0.05)
        done.set()

    iscsid.on_login = slow
    ask(iscsid, login())
    assert done.is_set()


def test_logins_overlap_and_answer_out_of_order() -> None:
    def delay(request: Request) -> float:
        assert request.fields is not None
        return float(request.fields["tpgt"]) / 1000

    with FakeIscsid(new_name(), login_delay=delay) as fake:
        clients = []
        for number, milliseconds in enumerate((300, 100, 200)):
            client = connect(fake)
            client.sendall(login(address=f"192.0.2.{number}", tpgt=milliseconds))
            client.shutdown(socket.SHUT_WR)
            clients.append(client)
        assert error_of(ask(fake, header(INAME))[0]) == 0  # served in between
        for client in clients:
            assert len(collect(client)[0]) == REPLY_SIZE
            client.close()
    finished = [request.finished or 0.0 for request in fake.of(LOGIN)]
    assert finished[1] < finished[2] < finished[0]
    assert fake.max_in_flight == 4
    assert fake.of(INAME)[0].in_flight == 4


def test_client_that_leaves_does_not_stop_its_login(iscsid: FakeIscsid) -> None:
    iscsid.login_delay = 0.1
    with connect(iscsid) as client:
        client.sendall(login())
    assert iscsid.wait_for(lambda: any(s.up for s in iscsid.sessions.values()))
    assert iscsid.wait_for(lambda: iscsid.requests[0].outcome == "client gone")


def test_denied(iscsid: FakeIscsid) -> None:
    iscsid.script(INAME, Deny())
    reply, end = ask(iscsid, header(INAME))
    assert struct.unpack_from("=Ii", reply) == (0, 13)
    assert end == "reset"
    iscsid.allowed_uid = os.geteuid() + 1
    assert error_of(ask(iscsid, header(INAME))[0]) == 13


def test_bad_manners(iscsid: FakeIscsid) -> None:
    iscsid.script(INAME, Reset(), Drop(), Truncate(100), Garbage(), Answer(3, command=9))
    assert ask(iscsid, header(INAME)) == (b"", "reset")
    assert ask(iscsid, header(INAME)) == (b"", "eof")
    reply, end = ask(iscsid, header(INAME))
    assert (len(reply), end) == (100, "eof")
    assert ask(iscsid, header(INAME)) == (b"\xa5" * REPLY_SIZE, "eof")
    reply, _ = ask(iscsid, header(INAME))
    assert struct.unpack_from("=Ii", reply) == (9, 3)
    reply, _ = ask(iscsid, header(INAME))  # and back to normal
    assert struct.unpack_from("=Ii", reply) == (INAME, 0)
    outcomes = [request.outcome for request in iscsid.requests]
    assert outcomes == ["reset", "dropped", "truncate", "garbage", "error 3", "answered"]


def test_hang_and_mute_leave_the_others_alone(iscsid: FakeIscsid) -> None:
    iscsid.script(LOGIN, Hang(), Mute())
    with connect(iscsid) as hung, connect(iscsid) as mute:
        for client, address in ((hung, "192.0.2.1"), (mute, "192.0.2.2")):
            client.sendall(login(address=address))
            client.shutdown(socket.SHUT_WR)
            client.settimeout(0.2)
        assert error_of(ask(iscsid, header(INAME))[0]) == 0
        assert collect(hung) == (b"", "timeout")
        assert collect(mute) == (b"", "timeout")
    assert [s.fields["address"] for s in iscsid.sessions.values() if s.up] == ["192.0.2.2"]


def test_wedge_stops_everybody(iscsid: FakeIscsid) -> None:
    iscsid.script(INAME, Wedge(0.3))
    with connect(iscsid) as first:
        first.sendall(header(INAME))
        first.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        assert error_of(ask(iscsid, header(STATS))[0]) == 2
        assert time.monotonic() - start > 0.2
        assert error_of(collect(first)[0]) == 0


def test_crash_takes_the_name_away(iscsid: FakeIscsid) -> None:
    iscsid.login_delay = 5
    with connect(iscsid) as waiting:
        waiting.sendall(login())
        waiting.shutdown(socket.SHUT_WR)
        assert iscsid.wait_for(lambda: bool(iscsid.of(LOGIN)))
        iscsid.script(INAME, Crash(1000))
        reply, _ = ask(iscsid, header(INAME))
        assert len(reply) == 1000
        assert collect(waiting)[0] == b""
    assert iscsid.crashed
    with pytest.raises(ConnectionRefusedError):
        connect(iscsid)


def test_restart_with_another_size(iscsid: FakeIscsid) -> None:
    ask(iscsid, login())
    iscsid.restart(request_size=16112)
    assert ask(iscsid, header(INAME)) == (b"", "eof")
    assert error_of(ask(iscsid, header(INAME, size=16112))[0]) == 0
    assert error_of(ask(iscsid, login(16112))[0]) == 15


def test_slow_start() -> None:
    with FakeIscsid(new_name(), start_delay=0.2) as fake:
        start = time.monotonic()
        assert error_of(ask(fake, header(INAME))[0]) == 0
        assert time.monotonic() - start > 0.15


def test_handler_decides(iscsid: FakeIscsid) -> None:
    iscsid.handlers[LOGIN] = lambda request: Answer(error=request.number % 3)
    assert [error_of(ask(iscsid, login())[0]) for _ in range(4)] == [0, 1, 2, 0]


def test_failing_hook_fails_the_test() -> None:
    def broken(session: Session) -> None:
        raise RuntimeError("hook")

    fake = FakeIscsid(new_name(), on_login=broken).start()
    assert ask(fake, login()) == (b"", "eof")
    with pytest.raises(RuntimeError, match="hook"):
        fake.stop()


def test_unknown_size_is_served_undecoded() -> None:
    with FakeIscsid(new_name(), request_size=16120) as fake:
        assert error_of(ask(fake, header(LOGIN, size=16120))[0]) == 0
    assert fake.requests[0].fields is None
