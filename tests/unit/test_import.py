# SPDX-License-Identifier: Apache-2.0
"""Importing costs nothing: no thread, no descriptor, hardly any time."""

from __future__ import annotations

import subprocess
import sys

import pytest

import manypath

SIDE_EFFECTS = """
import os, signal, sys, threading

def state():
    tasks = os.listdir("/proc/self/task")
    descriptors = os.listdir("/proc/self/fd")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGCHLD)]
    return len(tasks), len(descriptors), threading.active_count(), handlers

before = state()
import manypath
from manypath import _core, cli, connect
assert state() == before, (before, state())
_core.Handle()
assert state() == before, "a handle that did nothing"
assert "pyudev" not in sys.modules
"""

TIME = """
import time
began = time.perf_counter()
import manypath
print(time.perf_counter() - began)
"""


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_no_side_effect() -> None:
    run(SIDE_EFFECTS)


def test_import_time() -> None:
    assert min(float(run(TIME)) for _ in range(5)) < 0.015


def test_every_public_name_is_there() -> None:
    for name in manypath.__all__:
        assert getattr(manypath, name) is getattr(manypath, name)
        assert name in dir(manypath)
    assert manypath.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        manypath.nothing  # noqa: B018
