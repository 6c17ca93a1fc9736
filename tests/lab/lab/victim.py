"""The program behind ``lab.Victims``: runs calls of the library, each in a process of its own.

It imports the library once and forks for each call, since a Python that starts costs seconds in the
guest. The library has neither threads nor descriptors before its first call, so a forked process is
as good as a new one. Orders come in as lines of JSON, reports go out likewise:

    {"pid": 7}  {"stopped": true}  {"result": {...}, "seconds": 0.4}  {"ended": -9}
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import manypath
from manypath.errors import ManypathError


def report(**message: Any) -> None:
    os.write(1, (json.dumps(message) + "\n").encode())


def call(order: dict[str, Any]) -> None:
    """The call itself; its time is that of the caller, from begin to return."""
    function = getattr(manypath, order["call"])
    begin = time.monotonic()
    result, error, message = None, None, ""
    try:
        result = function(order["properties"], **order["options"]).as_dict()
    except ManypathError as caught:
        error, message = type(caught).__name__, str(caught)
    seconds = time.monotonic() - begin
    report(result=result, error=error, message=message, seconds=seconds)


def watch(pid: int) -> None:
    """Until the process has ended; negative: by which signal."""
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            report(ended=os.waitstatus_to_exitcode(status))
            return
        report(stopped=True)


def serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ.update(order["environment"])
            call(order)
            return  # and ends as any program of a user's does
        report(pid=pid)
        watch(pid)


if __name__ == "__main__":
    serve()
