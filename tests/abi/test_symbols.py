# SPDX-License-Identifier: Apache-2.0
"""What the built files export, and what they need."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import header
from manypath import _core


def exported(path: Path) -> set[str]:
    """Names of the dynamic symbols that a file defines, without versions."""
    done = subprocess.run(
        ["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True
    )
    symbols = (line.split() for line in done.stdout.splitlines())
    # The version node of the map file is listed as an absolute symbol.
    return {symbol[2].partition("@")[0] for symbol in symbols if symbol[1] != "A"}


def dynamic_section(path: Path) -> str:
    done = subprocess.run(["readelf", "-d", path], check=True, capture_output=True, text=True)
    return done.stdout


def test_library_exports_what_the_header_declares() -> None:
    assert exported(header.library_path()) == header.function_names()


def test_map_file_lists_what_the_header_declares() -> None:
    text = (header.PROJECT / "native" / "libmanypath.map").read_text()
    assert set(re.findall(r"^\s+(manypath_\w+);$", text, re.MULTILINE)) == header.function_names()


def test_soname_has_major_and_minor_number() -> None:
    major, minor, _ = _core.version().split(".")
    assert f"Library soname: [libmanypath.so.{major}.{minor}]" in dynamic_section(
        header.library_path()
    )


def test_extension_exports_its_init_function_only() -> None:
    assert exported(Path(_core.__file__)) == {"PyInit__core"}


def test_extension_is_for_every_python_from_3_11_on() -> None:
    assert _core.__file__.endswith(".abi3.so")


def test_nothing_but_libc_and_libcrypto_is_needed() -> None:
    for path in (header.library_path(), Path(_core.__file__)):
        needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic_section(path))
        assert {name.partition(".so")[0] for name in needed} <= {"libc", "libcrypto", "libpthread"}


def test_no_fault_point_is_in_a_normal_build() -> None:
    """The lab's second build has them; no variable of its environment ends a user's process."""
    sources = (header.PROJECT / "native" / "src").glob("*.c")
    points = {
        name for path in sources for name in re.findall(r'MP_FAULT\("([^"]+)"\)', path.read_text())
    }
    assert len(points) > 20
    for path in (header.library_path(), Path(_core.__file__)):
        built = path.read_bytes()
        found = [word for word in ("MANYPATH_FAULT", *points) if word.encode() in built]
        assert found == [], path
