# SPDX-License-Identifier: Apache-2.0
"""libmanypath.so does what its header says, as far as that needs no iscsid."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cffi
import pytest

import header
from manypath import errors

IQN = b"iqn.2010-10.org.example:1"
LIVE_ADDRESS = b"127.0.0.1"


@pytest.fixture(scope="session")
def ffi() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(header.declarations())
    return ffi


@pytest.fixture(scope="session")
def library(ffi: cffi.FFI) -> Any:
    path = header.library_path()
    assert path.exists(), f"{path} is not built; run make unit, or set MANYPATH_LIBRARY"
    return ffi.dlopen(str(path))


@pytest.fixture
def handle(ffi: cffi.FFI, library: Any) -> Iterator[Any]:
    found = ffi.new("struct manypath **")
    assert library.manypath_open(ffi.NULL, found, ffi.NULL) == 0
    yield found[0]
    library.manypath_close(found[0])


def text(ffi: cffi.FFI, value: Any) -> str:
    """A C string as Python text; raises if it is not UTF-8."""
    found = ffi.string(value)
    assert isinstance(found, bytes)
    return found.decode()


def begin(
    ffi: cffi.FFI, library: Any, handle: Any, targets: list[tuple[Any, ...]], **fields: Any
) -> tuple[int, Any]:
    """Begin an attach that is expected to be refused; return the code and the error."""
    texts = [(ffi.new("char[]", address), ffi.new("char[]", iqn)) for address, _, iqn, _ in targets]
    array = ffi.new("struct manypath_target[]", max(len(targets), 1))
    for item, (address, iqn), (_, port, _, lun) in zip(array, texts, targets, strict=False):
        item.address, item.port, item.iqn, item.lun = address, port, iqn, lun
    request = {"targets": array, "target_count": len(targets), "timeout_ms": 1000, **fields}
    operation = ffi.new("struct manypath_operation **")
    err: Any = ffi.new("struct manypath_error *")
    code = library.manypath_attach_begin(
        handle, ffi.new("struct manypath_attach_request *", request), operation, err
    )
    assert operation[0] == ffi.NULL
    return code, err


def test_version(ffi: cffi.FFI, library: Any) -> None:
    assert text(ffi, library.manypath_version()) == importlib.metadata.version("manypath")


def test_code_names(ffi: cffi.FFI, library: Any) -> None:
    codes = header.enum_values("manypath_code")
    for name, value in codes.items():
        short = name.removeprefix("MANYPATH_").removeprefix("E_")
        assert text(ffi, library.manypath_code_name(value)) == short
    assert text(ffi, library.manypath_code_name(1)) == "UNKNOWN"


def test_python_knows_every_code() -> None:
    codes = header.enum_values("manypath_code")
    assert codes.pop("MANYPATH_OK") == 0
    assert codes == {f"MANYPATH_E_{code.name}": code.value for code in errors.Code}


def test_phase_names(ffi: cffi.FFI, library: Any) -> None:
    for name, value in header.enum_values("manypath_phase").items():
        short = name.removeprefix("MANYPATH_PHASE_").lower()
        assert text(ffi, library.manypath_phase_name(value)) == short
    assert text(ffi, library.manypath_phase_name(-1)) == "unknown"
    assert text(ffi, library.manypath_phase_name(99)) == "unknown"


def test_struct_layouts(ffi: cffi.FFI, tmp_path: Path) -> None:
    """A compiler and cffi read the same sizes and offsets out of the header."""
    fields = [(name, field) for name, names in header.struct_fields().items() for field in names]
    assert ("manypath_disk_info", "channel") in fields
    lines = [
        f'printf("{name} {field} %zu %zu\\n", sizeof(struct {name}), '
        f"offsetof(struct {name}, {field}));"
        for name, field in fields
    ]
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <manypath/manypath.h>\n#include <stdio.h>\n"
        f"int main(void)\n{{\n{chr(10).join(lines)}\n}}\n"
    )
    program = tmp_path / "layout"
    include = header.HEADER.parents[1]
    subprocess.run(["cc", "-std=c11", f"-I{include}", "-o", program, source], check=True)
    compiled = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert compiled.splitlines() == [
        f"{name} {field} {ffi.sizeof(f'struct {name}')} {ffi.offsetof(f'struct {name}', field)}"
        for name, field in fields
    ]


@pytest.mark.parametrize("language", ["c", "c++"])
def test_header_stands_alone(tmp_path: Path, language: str) -> None:
    if language == "c++" and shutil.which("c++") is None:
        pytest.fail("no C++ compiler: apt-get install g++")
    source = tmp_path / "include"
    source.write_text("#include <manypath/manypath.h>\n")
    command = ["cc", "-x", language, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]
    subprocess.run([*command, f"-I{header.HEADER.parents[1]}", source], check=True)


def test_open_starts_nothing(ffi: cffi.FFI, library: Any) -> None:
    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    before = state()
    for _ in range(100):
        found = ffi.new("struct manypath **")
        assert library.manypath_open(ffi.NULL, found, ffi.NULL) == 0
        assert found[0] != ffi.NULL
        assert state() == before
        library.manypath_close(found[0])
    library.manypath_close(ffi.NULL)
    assert state() == before


def test_open_checks_its_options(ffi: cffi.FFI, library: Any) -> None:
    found = ffi.new("struct manypath **")
    err: Any = ffi.new("struct manypath_error *")
    options = ffi.new("struct manypath_options *", {"logins_in_flight": 33})
    assert library.manypath_open(options, found, err) == errors.Code.INVALID
    assert found[0] == ffi.NULL
    assert "logins_in_flight" in text(ffi, err.message)


@pytest.mark.parametrize(
    ("targets", "fields"),
    [
        ([], {}),
        ([(LIVE_ADDRESS, 0, IQN, 1)], {}),
        ([(b"", 3260, IQN, 1)], {}),
        ([(b"storage.example", 3260, IQN, 1)], {}),
        ([(b"[2001:db8::1]", 3260, IQN, 1)], {}),
        ([(b"192.0.2.256", 3260, IQN, 1)], {}),
        ([(LIVE_ADDRESS, 3260, b"", 1)], {}),
        ([(LIVE_ADDRESS, 3260, b"storage", 1)], {}),
        ([(LIVE_ADDRESS, 3260, IQN + b"\n", 1)], {}),
        ([(LIVE_ADDRESS, 3260, IQN + b" ", 1)], {}),
        ([(LIVE_ADDRESS, 3260, IQN + b"\xff", 1)], {}),
        ([(LIVE_ADDRESS, 3260, b"iqn." + b"a" * 296, 1)], {}),
        ([(LIVE_ADDRESS, 3260, b"iqn." + b"a" * 220, 1)], {}),
        ([(LIVE_ADDRESS, 3260, IQN, 2**63)], {}),
        ([(LIVE_ADDRESS, 3260, IQN, 1), (LIVE_ADDRESS, 3260, IQN, 2**64 - 1)], {}),
        ([(LIVE_ADDRESS, 3260, IQN, i) for i in range(1025)], {}),
        ([(LIVE_ADDRESS, 3260, IQN, 1)], {"timeout_ms": 0}),
        ([(LIVE_ADDRESS, 3260, IQN, 1)], {"timeout_ms": 24 * 3600 * 1000 + 1}),
    ],
)
def test_attach_refuses(
    ffi: cffi.FFI, library: Any, handle: Any, targets: list[Any], fields: dict[str, int]
) -> None:
    before = os.listdir("/proc/self/task")
    code, err = begin(ffi, library, handle, targets, **fields)
    assert code == err.code == errors.Code.INVALID
    assert err.phase == library.MANYPATH_PHASE_REQUEST
    assert not err.retryable
    message = text(ffi, err.message)
    assert message
    assert message.isascii()
    assert "\n" not in message
    assert os.listdir("/proc/self/task") == before


def test_error_argument_is_optional(ffi: cffi.FFI, library: Any, handle: Any) -> None:
    request = ffi.new("struct manypath_attach_request *", {"timeout_ms": 1})
    operation = ffi.new("struct manypath_operation **")
    code = library.manypath_attach_begin(handle, request, operation, ffi.NULL)
    assert code == errors.Code.INVALID


def test_inventory(ffi: cffi.FFI, library: Any, handle: Any) -> None:
    found = ffi.new("struct manypath_inventory **")
    assert library.manypath_inventory_read(handle, found, ffi.NULL) == 0
    library.manypath_inventory_free(found[0])
    library.manypath_inventory_free(ffi.NULL)


def test_inventory_of_an_empty_sysfs(ffi: cffi.FFI, library: Any, tmp_path: Path) -> None:
    found = ffi.new("struct manypath_inventory **")
    handle = ffi.new("struct manypath **")
    root = ffi.new("char[]", os.fsencode(tmp_path))
    options = ffi.new("struct manypath_options *", {"sysfs_root": root})
    assert library.manypath_open(options, handle, ffi.NULL) == 0
    assert library.manypath_inventory_read(handle[0], found, ffi.NULL) == 0
    assert found[0].session_count == 0
    assert found[0].disk_count == 0
    library.manypath_inventory_free(found[0])
    library.manypath_close(handle[0])


def test_frees_take_null(ffi: cffi.FFI, library: Any) -> None:
    for name in ("attachment", "detachment", "extension", "paths"):
        getattr(library, f"manypath_{name}_free")(ffi.NULL)


@pytest.fixture
def no_iscsid(ffi: cffi.FFI, library: Any, tmp_path: Path) -> Iterator[Any]:
    """A handle whose iscsid does not exist, on an empty host."""
    handle = ffi.new("struct manypath **")
    root = ffi.new("char[]", os.fsencode(tmp_path))
    socket = ffi.new("char[]", b"MANYPATH_TEST_NOBODY_LISTENS")
    options = ffi.new("struct manypath_options *", {"sysfs_root": root, "iscsid_socket": socket})
    assert library.manypath_open(options, handle, ffi.NULL) == 0
    yield handle[0]
    library.manypath_close(handle[0])


def test_attach_without_iscsid(ffi: cffi.FFI, library: Any, no_iscsid: Any) -> None:
    """The whole way through the engine: begin, wait, a typed error with the path, all freed."""
    address, iqn = ffi.new("char[]", LIVE_ADDRESS), ffi.new("char[]", IQN)
    targets = ffi.new(
        "struct manypath_target[]",
        [{"address": address, "port": 3260, "iqn": iqn, "lun": 1}] * 2,
    )
    request = {"targets": targets, "target_count": 2, "timeout_ms": 5000}
    operation = ffi.new("struct manypath_operation **")
    err: Any = ffi.new("struct manypath_error *")
    code = library.manypath_attach_begin(
        no_iscsid, ffi.new("struct manypath_attach_request *", request), operation, err
    )
    assert code == 0, text(ffi, err.message)
    assert library.manypath_operation_fd(operation[0]) >= 0
    assert library.manypath_operation_wait(operation[0], 4000) == 0
    attachment = ffi.new("struct manypath_attachment **")
    paths = ffi.new("struct manypath_path **")
    count = ffi.new("size_t *")
    code = library.manypath_attach_finish(operation[0], attachment, paths, count, err)
    # Not root: refused before iscsid is asked.
    assert code in (errors.Code.ISCSID_DOWN, errors.Code.PERMISSION, errors.Code.NO_MULTIPATH)
    assert code == err.code
    assert text(ffi, err.message)
    assert attachment[0] == ffi.NULL
    assert count[0] <= 1  # duplicates collapsed
    library.manypath_paths_free(paths[0])


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_handles_in_many_threads(ffi: cffi.FFI, library: Any) -> None:
    def work() -> None:
        for _ in range(50):
            found = ffi.new("struct manypath **")
            assert library.manypath_open(ffi.NULL, found, ffi.NULL) == 0
            begin(ffi, library, found[0], [])
            library.manypath_close(found[0])

    in_threads(8, work)
