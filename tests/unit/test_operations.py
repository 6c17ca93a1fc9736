# SPDX-License-Identifier: Apache-2.0
"""connect(), disconnect(), extend() and inventory() above the extension."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import pytest

import manypath
from fake_core import FakeHandle, make_detachment
from manypath import Flush, _core, operations
from manypath.errors import (
    InUseError,
    InvalidRequestError,
    PortalNoAnswerError,
    SystemCallError,
)

PROPERTIES = {
    "target_portals": ["192.0.2.1:3260", "192.0.2.2:3260"],
    "target_iqns": ["iqn.2010-10.org.example:1"],
    "target_lun": 1,
}
UNEQUAL = {**PROPERTIES, "target_luns": [1, 1, 1]}


def test_connect(handle: FakeHandle) -> None:
    attachment = manypath.connect(PROPERTIES, timeout=2.5, min_paths=2)
    ((name, targets, timeout_ms, min_paths),) = handle.calls
    assert (name, timeout_ms, min_paths) == ("attach", 2500, 2)
    assert [str(target.portal) for target in targets] == PROPERTIES["target_portals"]
    assert attachment.path == "/dev/dm-3"
    assert attachment.warnings == ("from the core",)


def test_disconnect(handle: FakeHandle) -> None:
    assert manypath.disconnect(PROPERTIES).sessions_kept == 1
    ((name, targets, timeout_ms),) = handle.calls
    assert (name, len(targets), timeout_ms) == ("detach", 2, 60000)
    assert handle.options == {"whole_map": False, "force": False}


def test_disconnect_with_force(handle: FakeHandle) -> None:
    """The errors are raised, unless they are to be ignored; without force they always are."""
    error = InUseError("dm-3 is in use")
    made = make_detachment(map_removed=False, flush=Flush.FAILED, errors=(error,))
    handle.error = InUseError("dm-3 is in use", detachment=made)
    with pytest.raises(InUseError) as caught:
        manypath.disconnect(PROPERTIES, force=True)
    assert handle.options["force"]
    assert caught.value.detachment is made
    assert manypath.disconnect(PROPERTIES, force=True, ignore_errors=True) == made
    with pytest.raises(InUseError):
        manypath.disconnect(PROPERTIES, ignore_errors=True)
    assert not handle.options["force"]
    handle.error = SystemCallError("refused before it began")
    with pytest.raises(SystemCallError):
        manypath.disconnect(PROPERTIES, force=True, ignore_errors=True)


def test_extend(handle: FakeHandle) -> None:
    extension = manypath.extend(PROPERTIES, timeout=2.5)
    assert extension.size_bytes == 3 << 29
    ((name, targets, timeout_ms),) = handle.calls
    assert (name, len(targets), timeout_ms) == ("extend", 2, 2500)
    assert handle.options == {"size_bytes": 0}
    manypath.extend(PROPERTIES, size=2 << 30, multipath=False)
    assert handle.options == {"size_bytes": 2 << 30}


@pytest.mark.parametrize("size", [0, -1, 1.0, "1", True, 2**63])
def test_size_is_checked(handle: FakeHandle, size: Any) -> None:
    with pytest.raises(InvalidRequestError, match="size"):
        manypath.extend(PROPERTIES, size=size)
    assert handle.calls == []


def test_inventory(handle: FakeHandle) -> None:
    assert not manypath.inventory().maps_known


def test_warnings_of_the_properties_come_first(handle: FakeHandle) -> None:
    first, second = manypath.connect(UNEQUAL).warnings
    assert "only the first 2" in first
    assert second == "from the core"
    assert "only the first 2" in manypath.disconnect(UNEQUAL).warnings[0]
    first, second = manypath.extend(UNEQUAL).warnings
    assert "only the first 2" in first
    assert second == "from the core"


def test_errors_pass(handle: FakeHandle) -> None:
    handle.error = PortalNoAnswerError("nobody")
    with pytest.raises(manypath.ManypathError) as caught:
        manypath.connect(PROPERTIES)
    assert caught.value is handle.error


@pytest.mark.parametrize(
    "timeout", [0, -1, 0.0, math.nan, math.inf, 86400.001, 10**400, "5", None, True, 1j]
)
def test_timeout_is_checked(handle: FakeHandle, timeout: Any) -> None:
    for call in (manypath.connect, manypath.disconnect, manypath.extend):
        with pytest.raises(InvalidRequestError, match="timeout"):
            call(PROPERTIES, timeout=timeout)
    assert handle.calls == []


@pytest.mark.parametrize(("timeout", "expected"), [(86400, 86400000), (0.0001, 1), (1, 1000)])
def test_timeout_in_milliseconds(handle: FakeHandle, timeout: float, expected: int) -> None:
    manypath.connect(PROPERTIES, timeout=timeout)
    assert handle.calls[0][2] == expected


@pytest.mark.parametrize("min_paths", [0, -1, 3, 1.0, "1", None, True, 2**64])
def test_min_paths_is_checked(handle: FakeHandle, min_paths: Any) -> None:
    with pytest.raises(InvalidRequestError, match="min_paths"):
        manypath.connect(PROPERTIES, min_paths=min_paths)
    assert handle.calls == []


def test_expected_identity(handle: FakeHandle) -> None:
    manypath.connect(PROPERTIES, wwid="naa.6001", serial="4711")
    assert (handle.options["wwid"], handle.options["serial"]) == ("naa.6001", "4711")


@pytest.mark.parametrize("name", ["wwid", "serial"])
@pytest.mark.parametrize("value", [5, b"3600", "36\0", ["3600"]])
def test_expected_identity_is_checked(handle: FakeHandle, name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        manypath.connect(PROPERTIES, **{name: value})
    assert handle.calls == []


def test_one_handle_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "Handle", FakeHandle)
    monkeypatch.setattr(operations, "_handles", {})
    found: list[object] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(operations._handle())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_a_forked_child_gets_its_own_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "Handle", FakeHandle)
    monkeypatch.setattr(operations, "_handles", {})
    ours = operations._handle()
    child = os.fork()
    if child == 0:
        # In the child nothing but the exit status may get out, not even an exception.
        os._exit(0 if not operations._handles and operations._handle() is not ours else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert operations._handle() is ours
