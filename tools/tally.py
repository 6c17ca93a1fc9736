#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sum JUnit result files into one line: N passed, N failed, N skipped.

A file that is missing or broken counts as one failure: its suite did not get to its end. The exit
status is 0 if something passed and nothing failed.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def count(file: Path) -> tuple[int, int, int]:
    """Return passed, failed and skipped test cases of a JUnit file."""
    try:
        cases = list(ET.parse(file).iter("testcase"))
    except (OSError, ET.ParseError) as error:
        print(f"{file}: {error}")
        return 0, 1, 0
    failed = sum(
        case.find("failure") is not None or case.find("error") is not None for case in cases
    )
    skipped = sum(
        case.find("skipped") is not None or case.get("status") in ("notrun", "disabled")
        for case in cases
    )
    return len(cases) - failed - skipped, failed, skipped


def main(arguments: list[str]) -> int:
    """Print the sum of the files given."""
    counts = [count(Path(argument)) for argument in arguments]
    passed, failed, skipped = (sum(column) for column in zip(*counts, strict=True))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
