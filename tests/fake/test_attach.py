# SPDX-License-Identifier: Apache-2.0
"""Attach on the simulated host."""

from __future__ import annotations

from fake.host import FakeHost


def test_attach(host: FakeHost) -> None:
    volume = host.export()
    made = host.handle.attach(host.targets(4)).finish()
    assert made.wwid == volume.wwid
