#!/usr/bin/env python3
"""Fill the stage: the folder that becomes /stage in the guest."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_STAGE = PROJECT / "build" / "lab" / "stage"


def make_stage(stage: Path = DEFAULT_STAGE) -> Path:
    """Refresh the tests in the stage; whatever else others put there stays."""
    stage.mkdir(parents=True, exist_ok=True)
    target = stage / "tests"
    if target.exists():
        shutil.rmtree(target)
    junk = shutil.ignore_patterns("__pycache__", "*.pyc", ".pytest_cache", ".ruff_cache")
    shutil.copytree(PROJECT / "tests", target, ignore=junk)
    return stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", nargs="?", type=Path, default=DEFAULT_STAGE)
    print(make_stage(parser.parse_args().stage))


if __name__ == "__main__":
    main()
