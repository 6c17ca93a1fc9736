#!/usr/bin/env python3
"""Run the lab benches: build wheel and floor, boot the lab's guest, measure there.

    host.py [--suite SUITE] [--timeout SECONDS] [guest.py's options]

The tables go to stdout, the single figures to build/bench/results/bench.json.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "build" / "bench"
STAGE = BUILD / "stage"
NATIVE = PROJECT / "native"
# Of the library, the floor takes the pure codecs and the wrappers of single calls, nothing else.
FLOOR_PARTS = ("dm", "dm_table", "iscsid_codec", "iscsid_layout", "multipathd", "scsi", "text",
               "uevent", "vpd", "wwids")  # fmt: skip
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wvla")
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc", "image")


def build_floor(into: Path) -> None:
    sources = [PROJECT / "benches/floor/floor.c"]
    sources += [NATIVE / "src" / f"{part}.c" for part in FLOOR_PARTS]
    includes = [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}"]
    # Static: it must run in a guest with another libc. Optimised as the wheel is.
    options = ["-std=c11", "-O3", "-DNDEBUG", "-D_GNU_SOURCE", "-pthread", "-static", *WARNINGS]
    subprocess.run(["cc", *options, *includes, *sources, "-o", into], check=True)


def build_wheel(into: Path) -> None:
    wheels = BUILD / "wheel"
    shutil.rmtree(wheels, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "-C", f"build-dir={BUILD / 'cmake'}", "-w", wheels, PROJECT]
    subprocess.run(command, check=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)


def make_stage() -> None:
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(PROJECT / "tests/lab", STAGE / "tests/lab", ignore=JUNK)
    shutil.copytree(PROJECT / "benches/lab", STAGE / "bench", ignore=JUNK)
    build_floor(STAGE / "bench/floor")
    build_wheel(STAGE / "site-packages")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", help="the guest's Debian: bookworm or trixie")
    parser.add_argument("--timeout", type=int, default=5400, help="seconds, boot included")
    parser.add_argument("--results", type=Path, default=BUILD / "results")
    arguments, for_guest = parser.parse_known_args()
    make_stage()
    command = [sys.executable, PROJECT / "tests/lab/boot.py", "run"]
    command += ["--stage", STAGE, "--results", arguments.results]
    command += ["--timeout", str(arguments.timeout)]
    if arguments.suite:
        command += ["--suite", arguments.suite]
    command += ["--", "python3", "/stage/bench/guest.py", *for_guest]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main())
