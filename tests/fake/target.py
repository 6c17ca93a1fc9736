# SPDX-License-Identifier: Apache-2.0
"""A scripted iSCSI target for discovery, with the manners of a good one or of a bad one.

    with FakeTarget() as target:
        target.offer("iqn.2010-10.org.example:a", "10.0.0.1:3260,1")
        ...
        target.script = my_script      # def my_script(talk: Talk) -> None, one call per connection

RFC 7143 section 11 for the PDUs. Only what discovery needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

NOP_OUT, LOGIN, TEXT, LOGOUT = 0x00, 0x03, 0x04, 0x06
NOP_IN, LOGIN_RESPONSE, TEXT_RESPONSE, LOGOUT_RESPONSE = 0x20, 0x23, 0x24, 0x26
ASYNC, REJECT = 0x32, 0x3F
NO_TAG = 0xFFFFFFFF
HASHES: dict[int, Callable[[bytes], bytes]] = {
    5: lambda data: hashlib.md5(data).digest(),
    6: lambda data: hashlib.sha1(data).digest(),
    7: lambda data: hashlib.sha256(data).digest(),
    8: lambda data: hashlib.sha3_256(data).digest(),
}


class Gone(Exception):  # noqa: N818
    """The initiator closed the connection."""


@dataclass
class Pdu:
    opcode: int
    flags: int
    header: bytes
    data: bytes

    @property
    def task_tag(self) -> int:
        return int(struct.unpack_from(">I", self.header, 16)[0])

    @property
    def transfer_tag(self) -> int:
        return int(struct.unpack_from(">I", self.header, 20)[0])

    @property
    def keys(self) -> dict[str, str]:
        pairs = (item.split(b"=", 1) for item in self.data.split(b"\0") if item)
        return {pair[0].decode(): pair[1].decode() for pair in pairs}


def text(*pairs: tuple[str, str] | str) -> bytes:
    """Pairs as they go over the wire; a string is taken as it is."""
    made = (pair if isinstance(pair, str) else f"{pair[0]}={pair[1]}" for pair in pairs)
    return b"".join(item.encode() + b"\0" for item in made)


class Talk:
    """One connection, from the target's side."""

    def __init__(self, target: FakeTarget, connection: socket.socket) -> None:
        self.target = target
        self.connection = connection
        self.stat_sn = 1000
        self.command_sn = 1
        self.seen: list[Pdu] = []

    # --- bytes -----------------------------------------------------------------------------------

    def _read(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            try:
                part = self.connection.recv(count - len(parts))
            except OSError as error:
                raise Gone from error
            if not part:
                raise Gone
            parts += part
        return parts

    def read(self) -> Pdu:
        header = self._read(48)
        length = int.from_bytes(header[5:8], "big")
        self._read(header[4] * 4)
        data = self._read((length + 3) & ~3)[:length]
        pdu = Pdu(header[0] & 0x3F, header[1], header, data)
        if pdu.opcode in (LOGIN, TEXT, LOGOUT):
            self.command_sn = int(struct.unpack_from(">I", header, 24)[0]) + (not header[0] & 0x40)
        self.seen.append(pdu)
        return pdu

    def send_raw(self, data: bytes) -> None:
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise Gone from error

    def send(
        self,
        opcode: int,
        flags: int = 0x80,
        data: bytes = b"",
        *,
        task_tag: int = 0,
        transfer_tag: int = NO_TAG,
        tail: bytes = b"",
        length: int | None = None,
        isid: bytes = bytes(8),
        bump: bool = True,
    ) -> None:
        """One PDU; ``length`` lies about the data's."""
        said = len(data) if length is None else length
        header = struct.pack(">BB2xI", opcode, flags, said) + isid
        header += struct.pack(
            ">IIIII", task_tag, transfer_tag, self.stat_sn, self.command_sn, self.command_sn + 8
        )
        self.stat_sn += bump
        self.send_raw(header + tail.ljust(12, b"\0") + data + bytes(-len(data) % 4))

    # --- manners ---------------------------------------------------------------------------------

    def answer_login(self, request: Pdu, flags: int, data: bytes = b"", status: int = 0) -> None:
        done = flags & 0x83 == 0x83
        self.send(
            LOGIN_RESPONSE,
            flags,
            data,
            task_tag=request.task_tag,
            transfer_tag=0,
            isid=request.header[8:14] + (b"\0\1" if done else b"\0\0"),
            tail=struct.pack(">H", status),
        )

    def login(self) -> Pdu:
        """Let it in, with CHAP if the target has some."""
        request = self.read()
        assert request.opcode == LOGIN
        keys = request.keys
        self.target.initiators.append(keys.get("InitiatorName", ""))
        assert keys.get("SessionType") == "Discovery"
        if self.target.chap is not None:
            request = self._authenticate(request)
        if request is None:
            raise Gone
        if request.flags & 0x0C == 0x00:  # it asked for security, which we do not want
            self.answer_login(request, 0x00, text(("AuthMethod", "None")))
            self.answer_login(self.read(), 0x81)
            request = self.read()
        self.answer_login(request, 0x87, text(("MaxRecvDataSegmentLength", "8192")))
        return request

    def _authenticate(self, request: Pdu) -> Pdu:
        chap = self.target.chap
        assert chap is not None
        if "CHAP" not in request.keys.get("AuthMethod", ""):
            self.answer_login(request, 0x00, status=0x0201)
            raise Gone
        self.answer_login(request, 0x00, text(("AuthMethod", "CHAP")))
        request = self.read()
        offered = [int(item) for item in request.keys["CHAP_A"].split(",")]
        self.target.offered = offered
        algorithm = next((item for item in offered if item in chap.algorithms), None)
        if algorithm is None:
            self.answer_login(request, 0x00, status=0x0201)
            raise Gone
        challenge = os.urandom(len(HASHES[algorithm](b"")))
        pairs = (("CHAP_A", str(algorithm)), ("CHAP_I", "7"), ("CHAP_C", f"0x{challenge.hex()}"))
        self.answer_login(request, 0x00, text(*pairs))
        request = self.read()
        keys = request.keys
        right = HASHES[algorithm](b"\7" + chap.password + challenge)
        if keys["CHAP_N"] != chap.username or number(keys["CHAP_R"]) != right:
            self.answer_login(request, 0x00, status=0x0201)
            raise Gone
        proof = b""
        if "CHAP_C" in keys:
            identifier = int(keys["CHAP_I"], 0)
            theirs = bytes([identifier]) + chap.password_in + number(keys["CHAP_C"])
            response = HASHES[algorithm](theirs).hex()
            proof = text(("CHAP_N", chap.username_in), ("CHAP_R", f"0x{response}"))
        self.answer_login(request, 0x81, proof)
        return self.read()

    def send_targets(self, request: Pdu, data: bytes, chunk: int = 8192) -> None:
        """The answer in as many PDUs as it takes, each asked for."""
        parts = [data[at : at + chunk] for at in range(0, len(data), chunk)] or [b""]
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            self.send(
                TEXT_RESPONSE,
                0x80 if last else 0x40,
                part,
                task_tag=request.task_tag,
                transfer_tag=NO_TAG if last else 77,
            )
            if not last:
                request = self.read()
                assert request.transfer_tag == 77

    def logout(self) -> None:
        request = self.read()
        assert request.opcode == LOGOUT
        self.target.logouts += 1
        self.send(LOGOUT_RESPONSE, 0x80, task_tag=request.task_tag)


def number(value: str) -> bytes:
    assert value.startswith("0x")
    return bytes.fromhex(value[2:])


@dataclass
class ChapServer:
    username: str
    password: bytes
    username_in: str = ""
    password_in: bytes = b""
    algorithms: tuple[int, ...] = (5,)


Script = Callable[[Talk], None]


def well_behaved(talk: Talk) -> None:
    talk.login()
    talk.send_targets(talk.read(), talk.target.listing())
    talk.logout()


@dataclass
class FakeTarget:
    """Listens on a free port of 127.0.0.1; each connection runs the script in a thread."""

    script: Script = well_behaved
    chap: ChapServer | None = None
    initiators: list[str] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    connections: int = 0
    logouts: int = 0
    failures: list[BaseException] = field(default_factory=list)
    _targets: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> FakeTarget:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        if error is None:
            assert not self.failures, self.failures

    def offer(self, name: str, *addresses: str) -> None:
        self._targets.append((name, addresses))

    def listing(self) -> bytes:
        pairs: list[tuple[str, str] | str] = []
        for name, addresses in self._targets:
            pairs.append(("TargetName", name))
            pairs += [("TargetAddress", address) for address in addresses]
        return text(*pairs)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self.script(Talk(self, connection))
        except Gone:
            pass
        except BaseException as error:
            self.failures.append(error)
        finally:
            with self._lock:
                self._open.discard(connection)
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            connection.close()
