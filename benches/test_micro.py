# SPDX-License-Identifier: Apache-2.0
"""What manypath costs by itself: no kernel, no daemon, no root. ``pytest benches/test_micro.py``.

An attach takes hundreds of milliseconds, nearly all of it in the kernel and in iscsid (benches/lab
measures that); these benches watch that our share stays in microseconds.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from manypath import properties

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

PROJECT = Path(__file__).resolve().parents[1]
BATCH = 1000  # calls of the codec in one round: one alone is little more than ctypes' own cost


def connection_properties(targets: int) -> dict[str, Any]:
    iqn = "iqn.2010-10.org.openstack:volume-4a0a2c5e-7d1b-4c3f-9d57-0f1f4b8f7f11"
    return {
        "target_discovered": False,
        "target_portals": [f"10.99.{number}.1:3260" for number in range(targets)],
        "target_iqns": [f"{iqn}-{number}" for number in range(targets)],
        "target_luns": [1] * targets,
        "volume_id": "4a0a2c5e-7d1b-4c3f-9d57-0f1f4b8f7f11",
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The codec of iscsid's requests, compiled as the library is."""
    library = tmp_path_factory.mktemp("codec") / "codec.so"
    native = PROJECT / "native"
    sources = [native / "src" / name for name in ("iscsid_codec.c", "iscsid_layout.c")]
    options = ["-std=c11", "-O3", "-DNDEBUG", "-D_GNU_SOURCE", "-fPIC", "-shared"]
    includes = [f"-I{native / 'include'}", f"-I{native / 'src'}"]
    sources.append(PROJECT / "benches" / "encode.c")
    subprocess.run(["cc", *options, *includes, *sources, "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("targets", [4, 64])
def test_parse_connection_properties(benchmark: BenchmarkFixture, targets: int) -> None:
    plan = benchmark(properties.plan, connection_properties(targets))
    assert len(plan.targets) == targets


def test_encode_1000_logins(benchmark: BenchmarkFixture, codec: ctypes.CDLL) -> None:
    assert benchmark(codec.encode_logins, BATCH) == 0


def test_decode_1000_replies(benchmark: BenchmarkFixture, codec: ctypes.CDLL) -> None:
    assert benchmark(codec.decode_replies, BATCH) == 0


@pytest.mark.benchmark(group="start of a process")
@pytest.mark.parametrize(
    "statement",
    ["pass", "import manypath", "from manypath import connect"],
)
def test_import(benchmark: BenchmarkFixture, statement: str) -> None:
    command = [sys.executable, "-c", statement]
    benchmark.pedantic(subprocess.run, (command,), {"check": True}, rounds=10, warmup_rounds=1)
