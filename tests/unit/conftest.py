# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the unit tests: nothing here needs root, iscsid or a kernel module."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

from fake_core import FakeHandle
from manypath import operations

PROJECT = Path(__file__).resolve().parents[2]

# How long an example takes says something about the machine, not about what is tested.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")


@pytest.fixture(scope="session")
def core_on_fake_library(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The extension, linked to fake_libmanypath.c instead of the C library."""
    build = tmp_path_factory.mktemp("core")
    generated = build / "_core.c"
    extension = build / "_core.abi3.so"
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", "manypath._core"]
    compiler = ["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-DPy_LIMITED_API=0x030B0000"]
    headers = [sysconfig.get_path("include"), PROJECT / "native" / "include"]
    fake = PROJECT / "tests" / "unit" / "fake_libmanypath.c"
    subprocess.run(
        [*cython, "-I", PROJECT / "src", "-o", generated, PROJECT / "src" / "_core.pyx"],
        check=True,
    )
    subprocess.run(
        [*compiler, *(f"-I{path}" for path in headers), "-o", extension, generated, fake],
        check=True,
    )
    spec = importlib.util.spec_from_file_location("manypath._core", extension)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> FakeHandle:
    """The handle that the operations use."""
    fake = FakeHandle()
    monkeypatch.setattr(operations, "_handle", lambda: fake)
    return fake
