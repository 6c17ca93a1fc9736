"""Calls of the library in processes of their own, to be killed, stopped or timed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("victim.py")
LIBRARY = Path("/stage/site-packages-faults")  # the build with fault points
ANSWER = 180.0  # seconds; a victim that takes longer is no victim but a hang of the test


@dataclass(frozen=True)
class Answer:
    """What a call returned or raised, and how long it took."""

    result: dict[str, Any] | None
    error: str | None
    message: str
    seconds: float


def blocked_threads(pid: int) -> list[str]:
    """Threads of a process in state D, by where in the kernel they are."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            place = (task / "wchan").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        if state == "D":
            found.append(f"{task.name} in {place}")
    return found


class Victim:
    """One call under way."""

    def __init__(self, server: Victims) -> None:
        self._server = server
        self._seen: dict[str, dict[str, Any]] = {}
        self.pid: int = self._await("pid")["pid"]

    def _await(self, *wanted: str, timeout: float = ANSWER) -> dict[str, Any]:
        """The first report of one of these kinds, each of which comes once."""
        deadline = time.monotonic() + timeout
        while not any(kind in self._seen for kind in wanted):
            message = self._server.read(deadline)
            self._seen[next(iter(message))] = message
        return next(self._seen[kind] for kind in wanted if kind in self._seen)

    def stops(self) -> bool:
        """Wait until it stopped at its fault point. False: it ended without passing that."""
        return "stopped" in self._await("stopped", "ended")

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def returns(self, timeout: float = ANSWER) -> Answer | None:
        """What the call came to. None: the process ended before."""
        message = self._await("result", "ended", timeout=timeout)
        if "result" not in message:
            return None
        return Answer(**message)

    def ends(self, timeout: float = ANSWER) -> int:
        """The exit status; negative: the signal that ended it."""
        return int(self._await("ended", timeout=timeout)["ended"])


class Victims:
    """Starts victims, one at a time."""

    def __init__(self) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        )
        self._buffer = b""

    def start(
        self,
        call: str,
        properties: dict[str, Any],
        fault: str = "",
        log: Path | None = None,
        **options: Any,
    ) -> Victim:
        """Begin ``manypath.<call>(properties, **options)``.

        ``fault``: what MANYPATH_FAULT is to be; ``log``: where passed fault points are noted.
        """
        environment = {"MANYPATH_FAULT": fault}
        if log is not None:
            environment["MANYPATH_FAULT_LOG"] = str(log)
        order = {
            "call": call,
            "properties": properties,
            "options": options,
            "environment": environment,
        }
        assert self._program.stdin is not None
        self._program.stdin.write(json.dumps(order).encode() + b"\n")
        self._program.stdin.flush()
        return Victim(self)

    def call(self, call: str, properties: dict[str, Any], **options: Any) -> dict[str, Any]:
        """The call, undisturbed, in a new process; it has to succeed."""
        victim = self.start(call, properties, **options)
        answer = victim.returns()
        status = victim.ends()
        assert answer is not None, f"{call} ended with {status}"
        assert answer.result is not None, f"{call}: {answer.error}: {answer.message}"
        return answer.result

    def read(self, deadline: float) -> dict[str, Any]:
        """The next report of the program's."""
        assert self._program.stdout is not None
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._program.stdout], [], [], left)[0]:
                raise AssertionError("the call has not answered in time")
            data = os.read(self._program.stdout.fileno(), 65536)
            assert data, "the program that starts the calls has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Of a victim that hangs in the kernel only the program is ended."""
        self._program.kill()
        self._program.wait(10)
        for pipe in (self._program.stdin, self._program.stdout):
            if pipe is not None:
                pipe.close()
