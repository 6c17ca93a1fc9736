# SPDX-License-Identifier: Apache-2.0
"""What the documentation says of the tests is so."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
HAZARDS = PROJECT / "docs" / "hazards.md"
NAMED = re.compile(r"`((?:lab|fake|unit|abi|native)/[\w/.]+?\.(?:py|c))(?:::(\w+))?`")


def missing(file: str, name: str) -> bool:
    path = PROJECT / file if file.startswith("native/") else PROJECT / "tests" / file
    if not path.is_file():
        return True
    defined = rf"^TEST\({name}\)" if path.suffix == ".c" else rf"^(?:async )?def {name}\("
    return bool(name) and not re.search(defined, path.read_text(), re.MULTILINE)


def rows() -> dict[str, str]:
    """Each row of the tables of hazards, by its number or letter."""
    lines = HAZARDS.read_text().splitlines()
    return {match[1]: line for line in lines if (match := re.match(r"\| (\d+|[A-I]) \|", line))}


def test_every_test_named_exists() -> None:
    named = NAMED.findall(HAZARDS.read_text())
    assert [f"{file}::{name}" for file, name in named if missing(file, name)] == []


def test_every_hazard_has_a_test() -> None:
    assert list(rows()) == [str(number) for number in range(1, 36)] + list("ABCDEFGHI")
    assert [number for number, row in rows().items() if not NAMED.search(row)] == []


def test_a_missing_test_is_found() -> None:
    assert missing("lab/test_reuse.py", "test_that_nobody_wrote")
    assert missing("lab/test_that_nobody_wrote.py", "")
    assert missing("native/tests/test_vpd.c", "nothing")
    assert not missing("native/tests/test_vpd.c", "order")
    assert not missing("unit/test_docs.py", "missing")
