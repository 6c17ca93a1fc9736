"""Running programs and waiting, for the lab itself; the library does neither this way."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL = 0.02  # seconds


def run(*command: str, check: bool = True, timeout: float = 60, stdin: str = "") -> str:
    """Run a program and return its output, stderr included; raise with that output if it fails."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")
    return done.stdout


def wait_until(condition: Callable[[], T], what: str, timeout: float = 20) -> T:
    """Poll until ``condition()`` is true; return its value, or fail saying what did not happen."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(POLL)
