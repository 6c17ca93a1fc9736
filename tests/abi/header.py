# SPDX-License-Identifier: Apache-2.0
"""The public C header as cffi takes it, and where the built library is."""

from __future__ import annotations

import os
import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HEADER = PROJECT / "native" / "include" / "manypath" / "manypath.h"


def library_path() -> Path:
    """libmanypath.so of MANYPATH_LIBRARY, else of the development build."""
    return Path(os.environ.get("MANYPATH_LIBRARY", PROJECT / "build" / "native" / "libmanypath.so"))


def declarations(header: Path = HEADER) -> str:
    """Return the header's declarations, without comments and what only a preprocessor knows."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)
    # What C++ compilers see, then all directives and the export mark.
    text = re.sub(r"#ifdef __cplusplus\n.*?#endif\n", "", text, flags=re.DOTALL)
    text = re.sub(r"^\s*#.*(?:\\\n.*)*$", "", text, flags=re.MULTILINE)
    return text.replace("MANYPATH_API", "")


def enum_values(name: str) -> dict[str, int]:
    """Return what the header's ``enum name`` spells out."""
    found = re.search(rf"enum {name} \{{(.*?)\}};", declarations(), re.DOTALL)
    assert found is not None
    values: dict[str, int] = {}
    following = 0
    for entry in filter(None, (part.strip() for part in found.group(1).split(","))):
        key, _, value = entry.partition("=")
        following = int(value) if value else following
        values[key.strip()] = following
        following += 1
    return values


def function_names() -> set[str]:
    """Return the functions that the header declares."""
    return set(re.findall(r"\b(manypath_\w+)\(", declarations()))


def struct_fields() -> dict[str, list[str]]:
    """Return the fields of each struct that the header defines, in order."""
    structs = re.findall(r"struct (manypath_\w+) \{(.*?)\};", declarations(), re.DOTALL)
    return {
        name: [
            re.sub(r"\[.*?\]", "", declarator).split()[-1].lstrip("*")
            for field in filter(None, (part.strip() for part in body.split(";")))
            for declarator in field.split(",")
        ]
        for name, body in structs
    }
