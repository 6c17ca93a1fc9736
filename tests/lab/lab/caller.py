"""Other processes that attach and detach, each with the library for itself."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, Self

START = 60.0  # seconds for Python on an emulated processor
GRACE = 5.0  # seconds beyond an operation's own timeout


@dataclass(frozen=True)
class Outcome:
    """What a call returned, or the error that it raised, as JSON tells it."""

    call: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None

    @property
    def word(self) -> str:
        """To be counted: what was called, and how it ended."""
        return f"{self.call} {'done' if self.error is None else self.error['code_name']}"


class Caller:
    """A process that waits for calls, so that two of them can begin at one moment."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._call = ""
        self._until = time.monotonic() + START
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(
        self, call: str, properties: dict[str, Any], at: float = 0.0, timeout: float = 60.0
    ) -> None:
        """Have ``connect``, ``disconnect`` or ``extend`` called at a monotonic time."""
        assert self._process.stdin is not None
        order = {"call": call, "properties": properties, "at": at, "timeout": timeout}
        self._call = call
        self._until = max(at, time.monotonic()) + timeout + GRACE
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def outcome(self) -> Outcome:
        """What became of the call; fails the test if it does not end in its time."""
        answer = self._answer()
        return Outcome(self._call, answer.get("result"), answer.get("error"))

    def call(self, call: str, properties: dict[str, Any], timeout: float = 60.0) -> Outcome:
        """Begin now, and wait for it."""
        self.begin(call, properties, timeout=timeout)
        return self.outcome()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        patience = max(0.0, self._until - time.monotonic())
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        if not ready:
            raise AssertionError(
                f"{self._call or 'starting'} did not end in time in another process"
            )
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the other process ended: {self._process.wait()}")
        return dict(json.loads(line))


def serve() -> None:
    """The other process: one line of JSON for a call, one for its answer."""
    import manypath

    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        function = getattr(manypath, order["call"])
        # Not a wait for an event: the moment itself was agreed on.
        time.sleep(max(0.0, order["at"] - time.monotonic()))
        try:
            answer = {"result": function(order["properties"], timeout=order["timeout"]).as_dict()}
        except manypath.ManypathError as error:
            answer = {"error": error.as_dict()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
