# SPDX-License-Identifier: Apache-2.0
"""A scripted iscsid: the management socket with the real one's manners, good and bad.

    with FakeIscsid("mp-test-1", login_delay=0.2) as iscsid:
        iscsid.script(LOGIN, Answer(error=8), Hang())
        ...
        assert iscsid.requests[-1].fields["port"] == 3260

What it copies from the real daemon (open-iscsi usr/mgmt_ipc.c): one thread accepts a connection and
reads one request of a fixed size from it, *blocking*; LOGIN and LOGOUT are answered later, in the
order in which they finish, while further connections are served. A request that is too short and
ended is dropped without an answer; one that is too short and not ended blocks the daemon; of one
that is too long the rest stays unread, so the client gets its answer and then ECONNRESET.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

LOGIN, LOGOUT, STATS, INAME, IALIAS, CONFIG_FILE, SESSION_INFO = 1, 2, 7, 8, 9, 10, 13
REPLY_SIZE = 2464
ERR_SESS_NOT_FOUND, ERR_ACCESS, ERR_SESS_EXISTS, ERR_INVALID_REQUEST = 2, 13, 15, 16

LAYOUTS = Path(__file__).resolve().parents[2] / "native" / "layouts"
_BYTES = {"password", "password_in"}

Fields = dict[str, Any]


class Layout:
    """A .layout file (docs/iscsid-layouts.md), read far more trustingly than the library does."""

    def __init__(self, path: Path) -> None:
        self.slots: dict[str, tuple[int, int]] = {}
        for line in path.read_text("ascii").splitlines():
            words = line.split("#", 1)[0].split()
            if len(words) == 3:
                self.slots[words[0]] = (int(words[1]), int(words[2]))
            elif words[:1] == ["name"]:
                self.name = words[1]
            elif words[:1] == ["request_size"]:
                self.request_size = int(words[1])

    @classmethod
    def for_size(cls, request_size: int) -> Layout | None:
        found = (cls(path) for path in sorted(LAYOUTS.glob("*.layout")))
        return next((item for item in found if item.request_size == request_size), None)

    def decode(self, raw: bytes) -> Fields:
        fields: Fields = {}
        for name, (offset, width) in self.slots.items():
            part = raw[offset : offset + width]
            if name in _BYTES:
                fields[name] = part
            elif width == 4:
                (fields[name],) = struct.unpack("=i", part)
            elif width == 1:
                fields[name] = part[0]
            elif name == "chap_algs":
                fields[name] = list(struct.unpack("=5i", part))
            else:
                fields[name] = part.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        for name in _BYTES:  # as iscsid does: without a bound of its own
            fields[name] = fields[name][: fields[f"{name}_length"]]
        return fields


@dataclass
class Request:
    """One connection. Times are time.monotonic()."""

    number: int
    uid: int
    pid: int
    accepted: float
    command: int = 0
    size: int = 0  # bytes read, at most request_size
    sid: int = 0
    payload_length: int = 0
    fields: Fields | None = None  # LOGIN of the right size, if the layout is known
    eof: bool = False  # the client had shut down its sending side (SHUT_WR)
    extra: bool = False  # the client sent more than request_size
    in_flight: int = 0  # requests waiting for their answer when this one came, itself included
    outcome: str = "reading"
    finished: float | None = None


# --- what to do with a request -------------------------------------------------------------------


@dataclass
class Action:
    """Base of what a script may order. `delay` holds the answer back, not the daemon."""

    delay: float | None = field(default=None, kw_only=True)


@dataclass
class Default(Action):
    """What the real one would do."""


@dataclass
class Answer(Action):
    """Say this, and do nothing."""

    error: int = 0
    payload: bytes = b""
    command: int | None = None  # None: echo the request's


@dataclass
class Mute(Action):
    """Do it but never answer: 2.1.10 with a manual scan (open-iscsi issue 484)."""


@dataclass
class Hang(Action):
    """Read the request and keep the connection open, without an answer, for ever."""


@dataclass
class Wedge(Action):
    """The whole daemon stops for so many seconds, then does the default."""

    seconds: float = 1.0


@dataclass
class Deny(Action):
    """The peer is not root: error 13, command 0, request left unread."""


@dataclass
class Reset(Action):
    """Close with the request unread: the client gets ECONNRESET instead of an answer."""


@dataclass
class Drop(Action):
    """Read the request and close without an answer, as for a wrong size: 0 bytes, then EOF."""


@dataclass
class Truncate(Action):
    """Only the first bytes of an answer."""

    size: int = 100


@dataclass
class Garbage(Action):
    """An answer of the right length with nothing sensible in it."""

    byte: int = 0xA5


@dataclass
class Crash(Action):
    """Half an answer, then the daemon is gone: this connection, all others, and the name."""

    size: int = 1000


@dataclass
class Session:
    sid: int
    fields: Fields
    up: bool = False

    @property
    def identity(self) -> tuple[str, str, int, str]:
        item = self.fields
        return item["target_name"], item["address"], item["port"], item["iface_name"]


Handler = Callable[[Request], Action]
Hook = Callable[[Session], int | None]
Delay = float | Callable[[Request], float]


@dataclass(order=True)
class _Due:
    when: float
    order: int
    request: Request = field(compare=False)
    connection: socket.socket = field(compare=False)
    action: Action = field(compare=False)
    session: Session | None = field(compare=False, default=None)


class FakeIscsid:
    """See the module. Everything given to the constructor may be changed while it runs.

    on_login and on_logout are called in a thread of the fake just before the answer is written, to
    change a fake sysfs for example; what they return, if not None or 0, becomes the error of the
    answer (and the login or logout has not happened). handlers[command] decides per request;
    script() comes before handlers.
    """

    def __init__(
        self,
        name: str,
        *,
        request_size: int = 16104,
        layout: Layout | None = None,
        backlog: int = 32,
        start_delay: float = 0.0,
        login_delay: Delay = 0.0,
        logout_delay: Delay = 0.0,
        on_login: Hook | None = None,
        on_logout: Hook | None = None,
        allowed_uid: int | None = None,
        initiator: str = "iqn.2016-04.com.open-iscsi:fake",
        first_sid: int = 1,
        eof_wait: float = 0.25,
        listen: Callable[[socket.socket, int], None] = socket.socket.listen,
    ) -> None:
        self.name = name
        self.layout = layout
        self.request_size = request_size
        self.backlog = backlog
        self.start_delay = start_delay
        self.login_delay = login_delay
        self.logout_delay = logout_delay
        self.on_login = on_login
        self.on_logout = on_logout
        self.allowed_uid = os.geteuid() if allowed_uid is None else allowed_uid
        self.config = {INAME: initiator, IALIAS: "", CONFIG_FILE: "/etc/iscsi/iscsid.conf"}
        self.eof_wait = eof_wait
        self.listen = listen
        self.handlers: dict[int, Handler] = {}
        self.requests: list[Request] = []
        self.sessions: dict[int, Session] = {}
        self.max_in_flight = 0
        self.crashed = False
        self.failures: list[BaseException] = []  # of hooks and handlers; raised again by stop()

        self._scripts: dict[int, deque[Action]] = defaultdict(deque)
        self._sids = itertools.count(first_sid)
        self._order = itertools.count()
        self._due: list[_Due] = []
        self._open: set[socket.socket] = set()
        self._pending: set[int] = set()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    # --- for tests -------------------------------------------------------------------------------

    def script(self, command: int, *actions: Action) -> None:
        """What to do with the next requests of this kind, in order; then as usual again."""
        with self._changed:
            self._scripts[command].extend(actions)

    def of(self, command: int) -> list[Request]:
        with self._changed:
            return [item for item in self.requests if item.command == command]

    @property
    def blocked(self) -> bool:
        """Somebody sent too little and did not end it: the real daemon would be dead now."""
        now = time.monotonic()
        with self._changed:
            return any(r.outcome == "reading" and now - r.accepted > 0.5 for r in self.requests)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 5.0) -> bool:
        """Wait until something that this object records is true."""
        with self._changed:
            return self._changed.wait_for(condition, timeout)

    def add_session(self, **fields: Any) -> Session:
        """A session from before; give at least target_name, address, port, iface_name."""
        with self._changed:
            session = Session(next(self._sids), fields, up=True)
            self.sessions[session.sid] = session
            return session

    def start(self) -> FakeIscsid:
        assert self._listener is None, "started twice"
        self._stopping = self.crashed = False
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Without a NUL behind the name, as iscsid has it: addrlen is 2 + 1 + len(name).
        listener.bind(b"\0" + self.name.encode())
        self.listen(listener, self.backlog)
        self._listener = listener
        for target in (self._serve, self._finish):
            thread = threading.Thread(target=target, name=f"{self.name}-{target.__name__}")
            thread.daemon = True
            thread.start()
            self._threads.append(thread)
        return self

    def stop(self) -> None:
        self._go_down()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), f"{thread.name} does not end"
        self._threads.clear()
        self._close_all()
        if self.failures:
            raise self.failures[0]

    def restart(self, request_size: int | None = None) -> None:
        """An upgrade of the package under the client's feet. Sessions stay, as in the kernel."""
        self.stop()
        if request_size is not None:
            self.request_size = request_size
            self.layout = None
        self.start()

    def __enter__(self) -> FakeIscsid:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except BaseException:
            if error is None:  # the test's own failure says more
                raise

    # --- the accepting thread --------------------------------------------------------------------

    def _serve(self) -> None:
        listener = self._listener
        assert listener is not None
        self._sleep(self.start_delay)
        while not self._stopping:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                if self._stopping:  # it would stay open, as no dead process's do
                    connection.close()
                    return
                self._open.add(connection)
            try:
                self._one(connection)
            except BaseException as error:
                # stop() shut the connection down, a crash closed it, or the client went away
                if not isinstance(error, OSError) and connection.fileno() >= 0:
                    self.failures.append(error)
                elif self.requests and self.requests[-1].outcome == "reading":
                    self.requests[-1].outcome = "cut"
                self._close(connection)

    def _one(self, connection: socket.socket) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("=3i", credentials)
        request = Request(len(self.requests), uid, pid, time.monotonic())
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        head = self._peek(connection, 4)
        if len(head) == 4:
            (request.command,) = struct.unpack("=I", head)
        action = self._choose(request)
        if uid != self.allowed_uid or isinstance(action, Deny):
            self._write(connection, _reply(0, ERR_ACCESS))
            self._end(request, connection, "denied")
        elif isinstance(action, Reset):
            self._end(request, connection, "reset")
        elif not self._read(connection, request):
            self._end(request, connection, "too short")
        elif isinstance(action, Hang):
            self._mark(request, "hanging")
        elif isinstance(action, Drop):
            self._end(request, connection, "dropped")
        else:
            if isinstance(action, Wedge):
                request.outcome = "wedging"
                self._sleep(action.seconds)
            handler = self.handlers.get(request.command)
            if handler is not None and type(action) is Default:
                action = handler(request)
            self._dispatch(connection, request, action)

    def _choose(self, request: Request) -> Action:
        with self._changed:
            queue = self._scripts[request.command]
            return queue.popleft() if queue else Default()

    def _peek(self, connection: socket.socket, size: int) -> bytes:
        """Waits for `size` bytes or the end, and leaves them unread."""
        while not self._stopping:
            head = connection.recv(size, socket.MSG_PEEK)
            if len(head) == size or not head:
                return head
            time.sleep(0.001)
        return b""

    def _read(self, connection: socket.socket, request: Request) -> bool:
        raw = bytearray()
        while len(raw) < self.request_size:
            part = connection.recv(self.request_size - len(raw))
            if not part:
                break
            raw += part
            request.size = len(raw)
        if len(raw) >= 12:
            _, request.payload_length, request.sid = struct.unpack_from("=IIi", raw)
        if len(raw) < self.request_size:
            request.eof = True
            return False
        # The real one never looks; we want to know whether SHUT_WR followed the request.
        poller = select.poll()
        poller.register(connection, select.POLLIN | select.POLLRDHUP)
        if poller.poll(self.eof_wait * 1000):
            request.extra = bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
            request.eof = not request.extra
        if request.command == LOGIN and not request.extra:
            layout = self.layout or Layout.for_size(self.request_size)
            request.fields = layout.decode(bytes(raw)) if layout is not None else None
        return True

    def _dispatch(self, connection: socket.socket, request: Request, action: Action) -> None:
        """Answers what the real one answers at once; hands LOGIN and LOGOUT to the other thread."""
        session: Session | None = None
        delay = 0.0
        if isinstance(action, Default | Mute | Wedge):
            session, error = self._begin(request)
            if error is not None:
                action = Answer(error)
            elif request.command == LOGIN:
                delay = _seconds(self.login_delay, request)
            elif request.command == LOGOUT:
                delay = _seconds(self.logout_delay, request)
            else:
                action = self._at_once(request)
        if action.delay is not None:
            delay = action.delay
        due = _Due(time.monotonic() + delay, next(self._order), request, connection, action)
        due.session = session
        with self._changed:
            self._pending.add(request.number)
            request.in_flight = len(self._pending)
            self.max_in_flight = max(self.max_in_flight, request.in_flight)
            request.outcome = "waiting"
            heapq.heappush(self._due, due)
            self._changed.notify_all()

    def _begin(self, request: Request) -> tuple[Session | None, int | None]:
        """The checks that the real one makes before it starts anything; an error, or None."""
        with self._changed:
            if request.command == LOGIN:
                if request.fields is None:
                    return None, None
                session = Session(0, request.fields)
                taken = any(s.identity == session.identity for s in self.sessions.values())
                if taken and not request.fields["multiple"]:
                    return None, ERR_SESS_EXISTS
                session.sid = next(self._sids)
                self.sessions[session.sid] = session
                return session, None
            if request.command in (LOGOUT, STATS, SESSION_INFO):
                found = self.sessions.get(request.sid)
                return found, None if found is not None else ERR_SESS_NOT_FOUND
            return None, None if request.command in self.config else ERR_INVALID_REQUEST

    def _at_once(self, request: Request) -> Answer:
        if request.command in self.config:
            return Answer(payload=self.config[request.command].encode()[:254])
        if request.command == SESSION_INFO:
            up = self.sessions[request.sid].up
            return Answer(payload=struct.pack("=2i", 0, 3 if up else 2))
        return Answer()

    # --- the answering thread --------------------------------------------------------------------

    def _finish(self) -> None:
        while True:
            with self._changed:
                while not self._stopping and not (
                    self._due and self._due[0].when <= time.monotonic()
                ):
                    self._changed.wait(self._due[0].when - time.monotonic() if self._due else None)
                if self._stopping:
                    return
                due = heapq.heappop(self._due)
            try:
                self._complete(due)
            except OSError:
                self._end(due.request, due.connection, "client gone")
            except BaseException as error:
                self.failures.append(error)
                self._end(due.request, due.connection, "failed")

    def _complete(self, due: _Due) -> None:
        request, connection, action = due.request, due.connection, due.action
        if isinstance(action, Default | Mute | Wedge):
            error = self._change(request, due.session)
            if isinstance(action, Mute):
                self._mark(request, "mute")
                return
            action = Answer(error)
        reply = _reply(request.command, 0)
        if isinstance(action, Answer):
            command = request.command if action.command is None else action.command
            reply = _reply(command, action.error, action.payload)
            outcome = f"error {action.error}" if action.error else "answered"
        elif isinstance(action, Garbage):
            reply, outcome = bytes([action.byte]) * REPLY_SIZE, "garbage"
        else:
            assert isinstance(action, Truncate | Crash), action
            reply, outcome = reply[: action.size], type(action).__name__.lower()
        with self._changed:  # before the client sees it and sends the next one
            self._pending.discard(request.number)
        self._write(connection, reply)
        if isinstance(action, Crash):
            self.crashed = True
            self._mark(request, outcome)
            self._go_down()
            self._close_all()
            return
        self._end(request, connection, outcome)

    def _change(self, request: Request, session: Session | None) -> int:
        if session is None:
            return 0
        hook = self.on_login if request.command == LOGIN else self.on_logout
        error = (hook(session) if hook is not None else None) or 0
        with self._changed:
            if request.command == LOGIN and error == 0:
                session.up = True
            elif (request.command == LOGIN) == (error != 0):
                self.sessions.pop(session.sid, None)
        return error

    # --- small things ----------------------------------------------------------------------------

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, seconds)

    def _write(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data, socket.MSG_NOSIGNAL)

    def _mark(self, request: Request, outcome: str) -> None:
        with self._changed:
            request.outcome = outcome
            request.finished = time.monotonic()
            if outcome != "hanging":
                self._pending.discard(request.number)
            self._changed.notify_all()

    def _end(self, request: Request, connection: socket.socket, outcome: str) -> None:
        self._mark(request, outcome)
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.discard(connection)
        connection.close()

    def _go_down(self) -> None:
        with self._changed:
            self._stopping = True
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
                listener.close()
            for connection in self._open:  # wakes recv()
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            self._changed.notify_all()

    def _close_all(self) -> None:
        with self._changed:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._due.clear()
            self._pending.clear()


def _reply(command: int, error: int, payload: bytes = b"") -> bytes:
    return struct.pack("=Ii", command, error) + payload.ljust(REPLY_SIZE - 8, b"\0")


def _seconds(delay: Delay, request: Request) -> float:
    return delay(request) if callable(delay) else delay
