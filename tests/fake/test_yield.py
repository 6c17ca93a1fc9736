# SPDX-License-Identifier: Apache-2.0
"""What an attach has in the background when another operation wants its LUNs."""

from __future__ import annotations

import pytest

from fake.host import FakeHost, until
from fake.library import PATIENCE
from fake.test_engine import cancel

# --- a map's job that hangs -----------------------------------------------------------------------


def test_paths_of_a_hanging_join_stay_with_it(host: FakeHost) -> None:
    """The answer was given; the job in the map still has the paths, and so their sessions."""
    host.export()
    targets = host.targets(2)
    first = host.handle.attach(targets).finish()
    gate = host.block("dm.status")
    stuck = host.handle.attach(targets, timeout=0.5)
    assert gate.reached()
    assert stuck.failure(PATIENCE * 3).code == "TIMEOUT"
    again = host.handle.attach(targets)
    assert not again.wait(0.2)
    gate.release()
    assert again.finish().device == first.device
    assert len(host.sessions) == 2


@pytest.mark.parametrize("point", ["dm.load", "dm.resume"])
def test_disks_of_a_hanging_map_are_not_deleted_under_it(host: FakeHost, point: str) -> None:
    host.export()
    targets = host.targets(2)
    gate = host.block(point)
    stuck = host.handle.attach(targets, timeout=0.5)
    assert gate.reached()
    stuck.cancel()
    assert stuck.failure(PATIENCE * 3).code == "CANCELLED"
    again = host.handle.attach(targets)
    assert not again.wait(0.3)
    assert not host.passed("delete")
    gate.release()
    assert [path.state for path in again.finish().paths] == ["ACTIVE"] * 2
    assert until(lambda: len(host.sessions) == 2)


def test_disks_of_a_map_that_is_unmade_are_not_deleted_under_it(host: FakeHost) -> None:
    """The flush of undoing hangs."""
    host.export()
    targets = host.targets(2)
    gate = host.block("dm.resume")
    stuck = host.handle.attach(targets, timeout=5.0)
    assert gate.reached()
    flush = host.block("fsync")
    cancel(host, stuck)
    gate.release()
    assert flush.reached()
    assert stuck.failure().code == "CANCELLED"
    operation = host.handle.detach(targets)
    assert not operation.wait(0.3)
    assert not host.passed("delete")
    flush.release()
    operation.finish()
    assert host.clean
