# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests on a fake host: no root, no VM, no kernel support needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake.host import FakeHost
from fake.library import PROJECT, Library, build, preload

SANITIZER = os.environ.get("MANYPATH_FAKE_SANITIZE", "")


@pytest.fixture(scope="session")
def library() -> Library:
    lacking = preload(SANITIZER)
    if lacking is not None:
        pytest.exit(f"MANYPATH_FAKE_SANITIZE={SANITIZER} needs LD_PRELOAD={lacking}", 2)
    return Library(build(PROJECT / "build" / "fake", SANITIZER))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where possible: a fake sysfs is thousands of tiny files."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="manypath-fake-", dir=memory) as path:
        yield Path(path)


@pytest.fixture
def host(library: Library, tmp_path: Path) -> Iterator[FakeHost]:
    with FakeHost(library, tmp_path) as made:
        yield made
