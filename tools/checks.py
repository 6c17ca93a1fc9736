#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run commands that check the sources; write a JUnit file with one case for each.

    tools/checks.py --junit FILE 'ruff check .' 'mypy'

All run, whatever the ones before said. The exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main() -> int:
    """Run the commands given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--junit", type=Path, required=True)
    parser.add_argument("commands", nargs="+")
    arguments = parser.parse_args()
    suite = ET.Element("testsuite", name="checks")
    failed = 0
    for command in arguments.commands:
        print(f"== {command}", flush=True)
        status = subprocess.run(["sh", "-c", command], check=False).returncode
        case = ET.SubElement(suite, "testcase", classname="checks", name=command)
        if status:
            failed += 1
            ET.SubElement(case, "failure", message=f"exit status {status}")
    arguments.junit.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(arguments.junit)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
