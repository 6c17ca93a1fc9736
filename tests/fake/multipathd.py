# SPDX-License-Identifier: Apache-2.0
"""multipathd on the fake host: the lock on its pid file, its socket, and what it does with maps.

with FakeMultipathd(host) as daemon:
    daemon.script("resize map", answer)  # the next answer, and nothing is done
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from fake.dm import DmError, Map, Table

if TYPE_CHECKING:
    from fake.host import Disk, FakeHost

FLOCK = struct.Struct("hhqqi4x")  # struct flock on 64-bit Linux
LENGTH = struct.Struct("=Q")  # size_t


class FakeMultipathd:
    """Owns every map of the host. `commands` is what it was told."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host
        self.commands: list[str] = []
        self.failures: list[BaseException] = []
        self.lingering: list[str] = []  # paths whose removal it has not heard of yet
        self._answers: list[tuple[str, str]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._pidfile = -1
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeMultipathd:
        self._listener.bind(f"\0{self.host.name}-multipathd")
        self._listener.listen(8)
        self._thread.start()
        path = self.host.run / "multipathd.pid"
        self._pidfile = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # A lock of the open file conflicts with the library's look though both are one process.
        lock = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        fcntl.fcntl(self._pidfile, fcntl.F_OFD_SETLK, lock)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.stop()
        if error is None:
            assert not self.failures, self.failures

    def stop(self) -> None:
        if self._pidfile < 0:
            return
        os.close(self._pidfile)
        self._pidfile = -1
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5.0)

    def script(self, command: str, *answers: str) -> None:
        """Answer so when a command begins like this, each answer once, and do nothing."""
        self._answers += [(command, answer) for answer in answers]

    def forget_script(self) -> None:
        self._answers.clear()

    # --- the socket ------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._talk(connection)
                except BaseException as error:
                    self.failures.append(error)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(5.0)
        head = connection.recv(LENGTH.size, socket.MSG_WAITALL)
        (length,) = LENGTH.unpack(head)
        command = connection.recv(length, socket.MSG_WAITALL).rstrip(b"\0").decode()
        self.commands.append(command)
        reply = self._answer(command).encode() + b"\0"
        with contextlib.suppress(BrokenPipeError):  # the library has given up waiting
            connection.sendall(LENGTH.pack(len(reply)) + reply)

    def _answer(self, command: str) -> str:
        for index, (start, answer) in enumerate(self._answers):
            if command.startswith(start):
                del self._answers[index]
                return answer
        if command == 'show paths raw format "%d"':
            with self.host.lock:
                return (
                    "".join(f"{name}\n" for name in (*self.host.disks, *self.lingering)) or "ok\n"
                )
        verb, what, name = command.split()
        with self.host.lock:
            try:
                done = getattr(self, f"_{verb}_{what}")(name)
            except DmError:
                done = False
        return "ok\n" if done else "fail\n"

    # --- the commands, as multipathd 0.9.8 and newer do them -------------------------------------

    def _find(self, name: str) -> Map | None:
        maps = self.host.dm.maps.values()
        return next((m for m in maps if name in (m.device, m.name, m.uuid[6:])), None)

    def _load(self, found: Map, disks: list[Disk], size: int) -> None:
        paths = "".join(f" {disk.dev[0]}:{disk.dev[1]} 1" for disk in disks)
        params = f"0 1 alua 1 1 service-time 0 {len(disks)} 1{paths}"
        self.host.dm._load(found, Table("multipath", params, size // 512))
        try:
            self.host.dm._swap(found)
        except DmError:
            self.host.dm._swap(found)  # back to the table from before
            raise

    def _disks(self, found: Map) -> list[Disk]:
        disks = (self.host.disk_of(dev) for dev in found.members)
        return [disk for disk in disks if disk is not None]

    def _size(self, found: Map) -> int:
        assert found.active is not None
        return found.active.sectors * 512

    def _resize_map(self, name: str) -> bool:
        found = self._find(name)
        if found is None:
            return False
        sizes = {disk.size for disk in self._disks(found) if disk.size}
        if len(sizes) != 1:
            return False
        self._load(found, self._disks(found), sizes.pop())
        return True

    def _del_path(self, name: str) -> bool:
        if name in self.lingering:
            self.lingering.remove(name)
            return True
        disk = self.host.disks[name]
        for found in self.host.dm.maps.values():
            if disk.dev in found.members:
                left = [other for other in self._disks(found) if other is not disk]
                self._load(found, left, self._size(found))
        return True

    def _add_path(self, name: str) -> bool:
        disk = self.host.disks[name]
        found = self._find(disk.volume.wwid)
        if found is None or disk.size != self._size(found):
            return False
        self._load(found, [*self._disks(found), disk], disk.size)
        return True

    def _del_map(self, name: str) -> bool:
        found = self._find(name)
        if found is None or found.open_count:
            return False
        self.host.dm._remove(found)
        return True

    def _disablequeueing_map(self, name: str) -> bool:
        return self._queue(name, False)

    def _restorequeueing_map(self, name: str) -> bool:
        return self._queue(name, True)

    def _queue(self, name: str, on: bool) -> bool:
        found = self._find(name)
        if found is not None:
            self.host.dm.queue(found, on)
        return found is not None
