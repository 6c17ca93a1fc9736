"""The C library alone, through cffi: the same attach and detach, without a line of Cython."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cffi
import pytest

from lab import Iscsid, Lab, Multipathd
from lab.blockdev import pattern, read_direct, write_direct

sys.path.insert(0, str(Path(__file__).parents[1] / "abi"))
from header import declarations

STAGE = Path(os.environ.get("STAGE", "/stage"))
TIMEOUT_MS = 30_000


class Library:
    """The shared library with its public header."""

    def __init__(self) -> None:
        self.ffi: Any = cffi.FFI()
        self.ffi.cdef(declarations(STAGE / "include/manypath/manypath.h"))
        self.lib: Any = self.ffi.dlopen(str(STAGE / "lib/libmanypath.so"))
        self.error = self.ffi.new("struct manypath_error *")
        handle = self.ffi.new("struct manypath **")
        self.check(self.lib.manypath_open(self.ffi.NULL, handle, self.error))
        self.handle = handle[0]

    def check(self, result: int) -> None:
        message = self.ffi.string(self.error.message).decode()
        assert result == 0, f"{self.code_name(result)}: {message}"

    def code_name(self, code: int) -> str:
        return str(self.ffi.string(self.lib.manypath_code_name(code)).decode())

    def targets(self, properties: dict[str, Any]) -> tuple[Any, list[Any]]:
        """struct manypath_target[] and the strings it points to."""
        keys = ("target_portals", "target_iqns", "target_luns")
        rows = list(zip(*(properties[key] for key in keys), strict=True))
        targets = self.ffi.new("struct manypath_target[]", len(rows))
        strings = []
        for target, (portal, iqn, lun) in zip(targets, rows, strict=True):
            address, port = portal.rsplit(":", 1)
            for name, text in (("address", address.strip("[]")), ("iqn", iqn)):
                strings.append(self.ffi.new("char[]", text.encode()))
                setattr(target, name, strings[-1])
            target.port = int(port)
            target.lun = lun
        return targets, strings

    def begin(self, what: str, properties: dict[str, Any], timeout_ms: int) -> Any:
        targets, strings = self.targets(properties)
        request = self.ffi.new(f"struct manypath_{what}_request *")
        request.targets, request.target_count = targets, len(targets)
        request.timeout_ms = timeout_ms
        operation = self.ffi.new("struct manypath_operation **")
        begin = getattr(self.lib, f"manypath_{what}_begin")
        self.check(begin(self.handle, request, operation, self.error))
        del strings  # copied by now: the caller's memory may go
        return operation[0]


@pytest.fixture
def library() -> Iterator[Library]:
    library = Library()
    yield library
    library.lib.manypath_close(library.handle)


def test_attach_and_detach(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, library: Library
) -> None:
    ffi, lib = library.ffi, library.lib
    volume = lab.volume()
    properties = lab.export(volume, lab.portals(4)).properties

    operation = library.begin("attach", properties, TIMEOUT_MS)
    assert lib.manypath_operation_wait(operation, TIMEOUT_MS) == 0
    result = ffi.new("struct manypath_attachment **")
    paths, count = ffi.new("struct manypath_path **"), ffi.new("size_t *")
    library.check(lib.manypath_attach_finish(operation, result, paths, count, library.error))
    attachment = result[0]

    assert ffi.string(attachment.wwid).decode() == volume.wwid
    assert attachment.path_count == 4
    states = [attachment.paths[i].state for i in range(4)]
    assert states == [lib.MANYPATH_PATH_ACTIVE] * 4
    device = f"/dev/{ffi.string(attachment.device).decode()}"
    lib.manypath_attachment_free(attachment)
    data = pattern("through the C library")
    write_direct(device, data)
    assert read_direct(device) == data

    operation = library.begin("detach", properties, TIMEOUT_MS)
    removed = ffi.new("struct manypath_detachment **")
    library.check(lib.manypath_detach_finish(operation, removed, library.error))
    assert (removed[0].devices_removed, removed[0].sessions_removed) == (4, 4)
    lib.manypath_detachment_free(removed[0])
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def test_a_cancelled_attach_is_undone(lab: Lab, iscsid: Iscsid, library: Library) -> None:
    ffi, lib = library.ffi, library.lib
    portals = lab.portals(4)
    properties = lab.export(lab.volume(), portals).properties
    for portal in portals[1:]:
        lab.cut(portal, "drop")
    operation = library.begin("attach", properties, TIMEOUT_MS)
    assert lib.manypath_operation_wait(operation, 500) in (0, -110)  # ETIMEDOUT
    lib.manypath_operation_cancel(operation)
    result = ffi.new("struct manypath_attachment **")
    code = lib.manypath_attach_finish(operation, result, ffi.NULL, ffi.NULL, library.error)
    assert library.code_name(code) == "CANCELLED"
    lab.heal()


def test_errors_reach_the_caller(lab: Lab, library: Library) -> None:
    ffi, lib = library.ffi, library.lib
    properties = lab.export(lab.volume(), lab.portals(1)).properties
    operation = library.begin("attach", properties, TIMEOUT_MS)  # iscsid does not run
    result = ffi.new("struct manypath_attachment **")
    paths, count = ffi.new("struct manypath_path **"), ffi.new("size_t *")
    code = lib.manypath_attach_finish(operation, result, paths, count, library.error)
    assert library.code_name(code) == "ISCSID_DOWN"
    assert count[0] == 1
    assert paths[0][0].error.code == code
    lib.manypath_paths_free(paths[0])
