"""Fixtures of the tests that run inside the lab's guest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import backend
from backend import SampleBackend
from lab import Iscsid, Lab, Multipathd, Network, Portal, load_target, run

pytest.register_assert_rewrite("lab.interrupted")  # what it asserts is told like a test's

PROGRAMS = (
    *("iscsiadm", "iscsid", "multipathd", "multipath", "dmsetup", "nft", "ip", "ss", "udevadm"),
    *("losetup", "lvcreate", "vgcreate"),
)
LOG_LINES = 60
MODULES = ("iscsi_tcp", "dm_multipath", "dm_round_robin", "dm_service_time", "scsi_dh_alua")


# What `make test` runs in the second guest only, besides every test's variant with multipathd.
SECOND = frozenset({"test_multipathd.py", "test_path_monitor.py"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--half",
        choices=("first", "second"),
        help="run one half of the tests: the second has the variants with multipathd running and "
        f"{', '.join(sorted(SECOND))}, the first has the rest; without it all of them",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Two guests share the tests, so that each one runs once."""
    half = config.getoption("half")
    if half is None:
        return
    others = [item for item in items if in_second_half(item) != (half == "second")]
    items[:] = [item for item in items if in_second_half(item) == (half == "second")]
    config.hook.pytest_deselected(items=others)


def in_second_half(item: pytest.Item) -> bool:
    """Whether a test, or this variant of it, needs multipathd as the second guest has it."""
    call = getattr(item, "callspec", None)
    running = call is not None and call.params.get("multipathd") == "running"
    return running or item.path.name in SECOND


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A failed test shows what the kernel and the daemons had to say."""
    report = (yield).get_result()
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and report.when == "call" and lab is not None:
        report.sections.append(("kernel log", "\n".join(lab.klog()[-LOG_LINES:])))
        report.sections.append(("iscsid", "\n".join(lab.iscsid.log()[-LOG_LINES:])))
        report.sections.append(("multipathd", "\n".join(lab.multipathd.log()[-LOG_LINES:])))


@pytest.fixture(scope="session")
def guest() -> Network:
    """The guest with all its prerequisites; a missing one fails every test, it skips none."""
    if os.geteuid() != 0 or not Path("/lab/job.conf").exists():
        pytest.fail("these tests run as root inside the lab's guest: tests/lab/boot.py")
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        pytest.fail(f"the guest lacks {', '.join(missing)}")
    run("modprobe", "-a", *MODULES)
    load_target()
    run("udevadm", "settle", "--timeout=60")  # coldplug: its workers would spoil process counts
    return Network()


class Poison:
    """Remembers that a test left a guest that could not be cleaned."""

    reason = ""


@pytest.fixture
def lab(guest: Network, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab, empty; fails the test if the guest is not as it was when the test ends."""
    if Poison.reason:
        pytest.fail(f"the guest is unusable since {Poison.reason}", pytrace=False)
    handle = Lab(guest)
    try:
        yield handle
        problems = handle.problems()
    finally:
        try:
            handle.close()
        except BaseException as error:
            Poison.reason = f"{request.node.name}, which could not be cleaned up: {error}"
            raise
    if problems:
        pytest.fail("left behind by this test:\n  " + "\n  ".join(problems), pytrace=False)


@pytest.fixture
def iscsid(lab: Lab, request: pytest.FixtureRequest) -> Iscsid:
    """iscsid, started directly; parametrize indirectly with "direct" or "socket"."""
    lab.iscsid.start(getattr(request, "param", "direct"))
    return lab.iscsid


@pytest.fixture(params=["stopped", "running"])
def multipathd(lab: Lab, request: pytest.FixtureRequest) -> Multipathd:
    """Runs the test without and with multipathd (default configuration of the distribution)."""
    if request.param == "running":
        lab.multipathd.start()
    return lab.multipathd


@pytest.fixture(scope="session")
def volume_group(guest: Network) -> Iterator[str]:
    """An LVM volume group on a loop device."""
    with backend.volume_group() as name:
        yield name


@pytest.fixture
def sample(lab: Lab, volume_group: str) -> Callable[..., SampleBackend]:
    """Makes sample backends: portals, the first is the primary one, and their options."""

    def make(portals: Sequence[Portal], **options: Any) -> SampleBackend:
        options.setdefault("volume_group", volume_group)
        return lab.keep(SampleBackend(portals[0], portals[1:], **options))

    return make
