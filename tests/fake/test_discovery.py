# SPDX-License-Identifier: Apache-2.0
"""Discovery through a scripted target: what good ones say, and what the network may throw at us.

Time is bounded, errors say what was wrong, and no descriptor stays open: the fixture checks that.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake import target as t
from fake.host import FakeHost, at_most, until
from fake.library import Chap, Failure
from fake.target import ChapServer, FakeTarget, Pdu, Script, Talk

IQN = "iqn.2010-10.org.example:volume"
SECRET = b"discovery secret"


@pytest.fixture
def target(host: FakeHost) -> Iterator[FakeTarget]:
    """A well-behaved one; afterwards no connection of ours is left."""
    host.handle.resolve("localhost").finish()  # the engine runs, and its threads
    before = sockets()
    with FakeTarget() as made:
        yield made
    assert until(lambda: sockets() <= before)


def sockets() -> int:
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            found += str(Path(f"/proc/self/fd/{name}").readlink()).startswith("socket:")
        except OSError:
            continue
    return found


def found(result: object) -> list[tuple[str, str, int, int]]:
    return [(item.iqn, item.host, item.port, item.tag) for item in result.targets]  # type: ignore[attr-defined]


# --- what good ones say ---------------------------------------------------------------------------


def test_names_and_addresses(host: FakeHost, target: FakeTarget) -> None:
    target.offer(f"{IQN}-1", "10.0.0.1:3260,1", "10.0.0.2:3261,2", "10.0.0.3")
    target.offer(f"{IQN}-2", "[fd00::0001]:3260,1", "[fd00::2],3", "storage.example.org:3262,1")
    target.offer(f"{IQN}-3")
    result = host.handle.discover("127.0.0.1", target.port).finish()
    assert found(result) == [
        (f"{IQN}-1", "10.0.0.1", 3260, 1),
        (f"{IQN}-1", "10.0.0.2", 3261, 2),
        (f"{IQN}-1", "10.0.0.3", 3260, -1),
        (f"{IQN}-2", "fd00::1", 3260, 1),
        (f"{IQN}-2", "fd00::2", 3260, 3),
        (f"{IQN}-2", "storage.example.org", 3262, 1),
        (f"{IQN}-3", "127.0.0.1", target.port, -1),
    ]
    assert (result.address, result.port) == ("127.0.0.1", target.port)
    assert target.initiators == ["iqn.2010-10.org.example:us"]
    assert until(lambda: target.logouts == 1)


def test_nothing_is_offered(host: FakeHost, target: FakeTarget) -> None:
    assert host.handle.discover("127.0.0.1", target.port).finish().targets == []


def test_addresses_that_mean_the_portal_asked(host: FakeHost, target: FakeTarget) -> None:
    """Some targets tell the wildcard they listen on; that and the address itself are one."""
    target.offer(IQN, "0.0.0.0:3262,1", "127.0.0.1:3262,1", f"[::]:{target.port},2")
    result = host.handle.discover("127.0.0.1", target.port).finish()
    assert found(result) == [(IQN, "127.0.0.1", 3262, 1), (IQN, "127.0.0.1", target.port, 2)]


def test_malformed_entries_are_left_out(host: FakeHost, target: FakeTarget) -> None:
    """They must not take the others with them."""
    target.offer("no iSCSI name", "10.0.0.1:3260,1")
    target.offer(IQN, "10.0.0.1:99999,1", "10.0.0.2:3260,1", "10.0.0.300:3260,1")
    result = host.handle.discover("127.0.0.1", target.port).finish()
    assert found(result) == [(IQN, "10.0.0.2", 3260, 1)]
    assert any("left out" in line for line in host.handle.log)


@pytest.mark.parametrize("count", [1, 64, 500, 2000])
def test_many_targets(host: FakeHost, target: FakeTarget, count: int) -> None:
    for index in range(count):
        target.offer(f"{IQN}-{index}", *(f"10.0.{portal}.1:3260,1" for portal in range(4)))
    with at_most(3.0):
        result = host.handle.discover("127.0.0.1", target.port).finish()
    assert len(result.targets) == 4 * count


def test_many_at_once(host: FakeHost, target: FakeTarget) -> None:
    """None waits for another."""
    target.offer(IQN, "10.0.0.1:3260,1")
    barrier = threading.Barrier(40)

    def all_together(talk: Talk) -> None:
        talk.login()
        request = talk.read()
        barrier.wait(20)
        talk.send_targets(request, talk.target.listing())
        talk.logout()

    target.script = all_together
    operations = [host.handle.discover("127.0.0.1", target.port) for _ in range(40)]
    assert all(
        found(operation.finish()) == [(IQN, "10.0.0.1", 3260, 1)] for operation in operations
    )


def test_logout_is_not_waited_for(host: FakeHost, target: FakeTarget) -> None:
    """The caller has the list; a target that does not say goodbye is left after a second."""
    target.offer(IQN, "10.0.0.1:3260,1")

    def rude(talk: Talk) -> None:
        talk.login()
        talk.send_targets(talk.read(), talk.target.listing())
        talk.read()
        talk.read()  # nothing more comes

    target.script = rude
    with at_most(0.5):
        assert len(host.handle.discover("127.0.0.1", target.port).finish().targets) == 1


def test_initiator_name_from_the_host(host: FakeHost) -> None:
    path = host.root / "initiatorname.iscsi"
    path.write_text("# InitiatorName=no\nInitiatorName=iqn.2010-10.org.example:host\n")
    handle = host.open(initiator_file=str(path))
    with FakeTarget() as target:
        handle.discover("127.0.0.1", target.port, initiator=None).finish()
    assert target.initiators == ["iqn.2010-10.org.example:host"]


@pytest.mark.parametrize("content", [None, "", "InitiatorName=nonsense\n"])
def test_host_without_a_name(host: FakeHost, content: str | None) -> None:
    path = host.root / "initiatorname.iscsi"
    if content is not None:
        path.write_text(content)
    handle = host.open(initiator_file=str(path))
    with pytest.raises(Failure) as caught:
        handle.discover("127.0.0.1", 3260, initiator=None)
    assert caught.value.code == ("SYSTEM" if content is None else "INVALID")
    assert str(path) in caught.value.message


# --- CHAP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [5, 6, 7, 8])
def test_chap(host: FakeHost, target: FakeTarget, algorithm: int) -> None:
    target.offer(IQN, "10.0.0.1:3260,1")
    target.chap = ChapServer("user", SECRET, algorithms=(algorithm,))
    chap = Chap("user", SECRET, algorithms=(8, 7, 6, 5))
    assert len(host.handle.discover("127.0.0.1", target.port, chap=chap).finish().targets) == 1
    assert target.offered == [8, 7, 6, 5]


def test_chap_offers_md5_alone(host: FakeHost, target: FakeTarget) -> None:
    target.chap = ChapServer("user", SECRET)
    host.handle.discover("127.0.0.1", target.port, chap=Chap("user", SECRET)).finish()
    assert target.offered == [5]


@pytest.mark.parametrize(
    "chap",
    [
        None,
        Chap("user", b"wrong secret"),
        Chap("somebody", SECRET),
        Chap("user", SECRET, algorithms=(7,)),
    ],
)
def test_chap_fails(host: FakeHost, target: FakeTarget, chap: Chap | None) -> None:
    target.chap = ChapServer("user", SECRET)
    with at_most(0.5):
        error = host.handle.discover("127.0.0.1", target.port, chap=chap).failure()
    assert (error.code, error.phase) == ("AUTH", "discovery")
    assert (error.address, error.port) == ("127.0.0.1", target.port)
    assert "wrong secret" not in error.message
    assert SECRET.decode() not in error.message


def test_chap_is_not_wanted(host: FakeHost, target: FakeTarget) -> None:
    """A target that needs no proof gets none."""
    host.handle.discover("127.0.0.1", target.port, chap=Chap("user", SECRET)).finish()
    assert target.offered == []


def test_mutual_chap(host: FakeHost, target: FakeTarget) -> None:
    target.chap = ChapServer("user", SECRET, "target", b"the target's secret")
    chap = Chap("user", SECRET, "target", b"the target's secret")
    host.handle.discover("127.0.0.1", target.port, chap=chap).finish()


@pytest.mark.parametrize(
    ("name", "secret"), [("target", b"not the target's"), ("another", b"the target's secret")]
)
def test_mutual_chap_fails(host: FakeHost, target: FakeTarget, name: str, secret: bytes) -> None:
    """The target cannot prove who it is."""
    target.chap = ChapServer("user", SECRET, name, secret)
    chap = Chap("user", SECRET, "target", b"the target's secret")
    error = host.handle.discover("127.0.0.1", target.port, chap=chap).failure()
    assert error.code == "AUTH"


def test_mutual_chap_is_not_given_up(host: FakeHost, target: FakeTarget) -> None:
    """A target that wants no authentication has not proved who it is."""
    chap = Chap("user", SECRET, "target", b"the target's secret")
    error = host.handle.discover("127.0.0.1", target.port, chap=chap).failure()
    assert error.code == "AUTH"


# --- redirects ------------------------------------------------------------------------------------


def redirecting(address: str, status: int = 0x0101) -> Script:
    def script(talk: Talk) -> None:
        talk.answer_login(talk.read(), 0x00, t.text(("TargetAddress", address)), status)
        talk.read()

    return script


@pytest.mark.parametrize("status", [0x0101, 0x0102])
@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_redirect(host: FakeHost, target: FakeTarget, name: str, status: int) -> None:
    with FakeTarget() as other:
        other.offer(IQN)
        target.script = redirecting(f"{name}:{other.port},1", status)
        result = host.handle.discover("127.0.0.1", target.port).finish()
        assert (result.address, result.port) == ("127.0.0.1", other.port)
        assert found(result) == [(IQN, "127.0.0.1", other.port, -1)]


def test_redirected_for_ever(host: FakeHost, target: FakeTarget) -> None:
    target.script = redirecting(f"127.0.0.1:{target.port}")
    with at_most(2.0):
        error = host.handle.discover("127.0.0.1", target.port).failure()
    assert error.code == "PROTOCOL"
    assert "redirected" in error.message
    assert target.connections == 9


def test_redirected_to_nowhere(host: FakeHost, target: FakeTarget) -> None:
    target.script = redirecting("no-such-host.invalid:3260")
    error = host.handle.discover("127.0.0.1", target.port).failure()
    assert error.code == "HOST_NAME"


# --- portals that are away ------------------------------------------------------------------------


def test_refused(host: FakeHost) -> None:
    with socket.socket() as item:
        item.bind(("127.0.0.1", 0))
        port = item.getsockname()[1]
    with at_most(0.5):
        error = host.handle.discover("127.0.0.1", port).failure()
    assert (error.code, error.phase, error.port) == ("REFUSED", "discovery", port)


def test_no_answer_to_the_connection(host: FakeHost) -> None:
    """A full backlog drops connections as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        fillers = []
        for _ in range(3):
            item = socket.socket()
            item.setblocking(False)
            item.connect_ex(("127.0.0.1", port))
            fillers.append(item)
        with at_most(1.5):
            error = host.handle.discover("127.0.0.1", port, timeout=0.5).failure()
        for item in fillers:
            item.close()
    assert error.code == "NO_ANSWER"


@pytest.mark.parametrize("after", [0, 1, 2])
def test_silent(host: FakeHost, target: FakeTarget, after: int) -> None:
    """At once, after the login, after a first part of the list."""

    def script(talk: Talk) -> None:
        if after > 0:
            talk.login()
            request = talk.read()
            if after > 1:
                part = t.text(("TargetName", IQN))
                talk.send(t.TEXT_RESPONSE, 0x40, part, task_tag=request.task_tag, transfer_tag=1)
        while True:
            talk.read()

    target.script = script
    with at_most(1.5):
        error = host.handle.discover("127.0.0.1", target.port, timeout=0.5).failure()
    assert error.code == "TIMEOUT"


@pytest.mark.parametrize("when", ["login", "list"])
def test_cancel(host: FakeHost, target: FakeTarget, when: str) -> None:
    reached = threading.Event()

    def script(talk: Talk) -> None:
        if when == "list":
            talk.login()
        talk.read()
        reached.set()
        talk.read()

    target.script = script
    operation = host.handle.discover("127.0.0.1", target.port)
    assert reached.wait(5)
    operation.cancel()
    assert operation.failure(2.0).code == "CANCELLED"


def test_closing_the_handle(host: FakeHost, target: FakeTarget) -> None:
    reached = threading.Event()

    def script(talk: Talk) -> None:
        talk.read()
        reached.set()
        talk.read()

    target.script = script
    operation = host.handle.discover("127.0.0.1", target.port)
    assert reached.wait(5)
    host.handle.close()
    assert operation.failure(2.0).code == "CANCELLED"


# --- targets that do what they must not -----------------------------------------------------------


def in_login(reply: bytes) -> Script:
    def script(talk: Talk) -> None:
        talk.read()
        talk.send_raw(reply)
        while True:
            talk.read()

    return script


def after_login(action: Script) -> Script:
    def script(talk: Talk) -> None:
        talk.login()
        action(talk)
        while True:
            talk.read()

    return script


def answer_text(talk: Talk, data: bytes, flags: int = 0x80, tag: int = t.NO_TAG) -> Pdu:
    request = talk.read()
    talk.send(t.TEXT_RESPONSE, flags, data, task_tag=request.task_tag, transfer_tag=tag)
    return request


def endless(talk: Talk) -> None:
    request = talk.read()
    serial = 0
    while True:
        lines = [("TargetName", f"{IQN}-{serial + i}") for i in range(100)]
        serial += 100
        talk.send(t.TEXT_RESPONSE, 0x40, t.text(*lines), task_tag=request.task_tag, transfer_tag=5)
        request = talk.read()


def endless_empty(talk: Talk) -> None:
    request = talk.read()
    while True:
        talk.send(t.TEXT_RESPONSE, 0x40, b"", task_tag=request.task_tag, transfer_tag=5)
        request = talk.read()


def endless_login(talk: Talk) -> None:
    while True:
        talk.answer_login(talk.read(), 0x04)


def wrong_tag(talk: Talk) -> None:
    request = talk.read()
    talk.send(t.TEXT_RESPONSE, 0x80, t.text(("TargetName", IQN)), task_tag=request.task_tag + 1)


def oversized(talk: Talk) -> None:
    request = talk.read()
    talk.send(t.TEXT_RESPONSE, 0x80, b"", task_tag=request.task_tag, length=0xFFFFFF)


def reject(talk: Talk) -> None:
    request = talk.read()
    talk.send(t.REJECT, 0x80, request.header, task_tag=t.NO_TAG)


HOSTILE: dict[str, Script] = {
    "http": in_login(b"HTTP/1.0 400 Bad Request\r\nServer: nobody\r\n\r\n" + bytes(64)),
    "zeros": in_login(bytes(4096)),
    "ones": in_login(b"\xff" * 4096),
    "login announces 16 MiB": in_login(struct.pack(">BB2xI", 0x23, 0x87, 0xFFFFFF) + bytes(40)),
    "login never ends": endless_login,
    "text never ends": after_login(endless),
    "empty text never ends": after_login(endless_empty),
    "wrong task tag": after_login(wrong_tag),
    "too much data": after_login(oversized),
    "reject": after_login(reject),
    "SCSI response": after_login(lambda talk: talk.send(0x21, 0x80, task_tag=talk.read().task_tag)),
    "address before a name": after_login(
        lambda talk: void(answer_text(talk, t.text(("TargetAddress", "10.0.0.1:3260,1"))))
    ),
    "no key": after_login(lambda talk: void(answer_text(talk, b"TargetName\0"))),
    "no end": after_login(lambda talk: void(answer_text(talk, b"TargetName=" + b"x" * 4000))),
    "final and continued": after_login(
        lambda talk: void(answer_text(talk, t.text(("TargetName", IQN)), 0xC0))
    ),
}


def void(_: object) -> None:
    """For lambdas."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(host: FakeHost, target: FakeTarget, name: str) -> None:
    target.script = HOSTILE[name]
    with at_most(4.0):
        error = host.handle.discover("127.0.0.1", target.port, timeout=8.0).failure()
    assert error.code == "PROTOCOL", error.message
    assert error.phase == "discovery"
    assert (error.address, error.port) == ("127.0.0.1", target.port)


@pytest.mark.parametrize("where", ["login", "header", "data"])
def test_closes_in_the_middle(host: FakeHost, target: FakeTarget, where: str) -> None:
    def script(talk: Talk) -> None:
        if where == "login":
            talk.read()
            talk.send_raw(bytes([0x23, 0x87]))
            return
        talk.login()
        request = talk.read()
        head = struct.pack(">BB2xI8xI", t.TEXT_RESPONSE, 0x80, 64, request.task_tag) + bytes(28)
        talk.send_raw(head[:20] if where == "header" else head + b"TargetName=")

    target.script = script
    with at_most(1.0):
        error = host.handle.discover("127.0.0.1", target.port).failure()
    assert error.code == "LOGIN"
    assert "closed the connection" in error.message


def test_one_byte_at_a_time(host: FakeHost, target: FakeTarget) -> None:
    target.offer(IQN, "10.0.0.1:3260,1")

    class Slow(Talk):
        def send_raw(self, data: bytes) -> None:
            for byte in data:
                super().send_raw(bytes([byte]))

    def script(talk: Talk) -> None:
        talk.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        slow = Slow(talk.target, talk.connection)
        t.well_behaved(slow)

    target.script = script
    assert len(host.handle.discover("127.0.0.1", target.port).finish().targets) == 1


def test_speaks_of_other_things_first(host: FakeHost, target: FakeTarget) -> None:
    """NOP-In is answered, events of other kinds are passed over."""
    target.offer(IQN, "10.0.0.1:3260,1")
    answered: list[Pdu] = []

    def script(talk: Talk) -> None:
        talk.login()
        request = talk.read()
        talk.send(t.NOP_IN, 0x80, task_tag=t.NO_TAG, transfer_tag=99, bump=False)
        answered.append(talk.read())
        talk.send(t.NOP_IN, 0x80, task_tag=t.NO_TAG, transfer_tag=t.NO_TAG, bump=False)
        talk.send_targets(request, talk.target.listing())
        talk.logout()

    target.script = script
    assert len(host.handle.discover("127.0.0.1", target.port).finish().targets) == 1
    (pdu,) = answered
    assert (pdu.opcode, pdu.task_tag, pdu.transfer_tag) == (t.NOP_OUT, t.NO_TAG, 99)


def test_login_is_refused(host: FakeHost, target: FakeTarget) -> None:
    target.script = lambda talk: talk.answer_login(talk.read(), 0x00, status=0x0202)
    error = host.handle.discover("127.0.0.1", target.port).failure()
    assert error.code == "LOGIN_REJECTED"


def test_target_is_out_of_resources(host: FakeHost, target: FakeTarget) -> None:
    target.script = lambda talk: talk.answer_login(talk.read(), 0x00, status=0x0302)
    error = host.handle.discover("127.0.0.1", target.port).failure()
    assert error.code == "LOGIN"


# --- host names -----------------------------------------------------------------------------------


def test_resolve(host: FakeHost) -> None:
    assert "127.0.0.1" in host.handle.resolve("localhost").finish()
    assert host.handle.resolve("192.0.2.1").finish() == ["192.0.2.1"]


def test_resolve_nothing(host: FakeHost) -> None:
    error = host.handle.resolve("no-such-host.invalid").failure()
    assert (error.code, error.phase) == ("HOST_NAME", "resolve")
    assert "no-such-host.invalid" in error.message


@pytest.mark.parametrize("name", ["", "-x", "a b", "x\n", "a" * 300])
def test_resolve_nonsense(host: FakeHost, name: str) -> None:
    with pytest.raises(Failure) as caught:
        host.handle.resolve(name)
    assert caught.value.code == "INVALID"
