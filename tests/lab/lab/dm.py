"""Device-mapper maps and arrays of a test's own, on top of a disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.tools import run


@contextmanager
def linear_map(name: str, disk: str, uuid: str) -> Iterator[Path]:
    """All of a disk under another name, as a logical volume on it would be."""
    sectors = Path(f"/sys/block/{disk}/size").read_text().strip()
    run("dmsetup", "create", name, "--uuid", uuid, "--table", f"0 {sectors} linear /dev/{disk} 0")
    try:
        yield Path("/dev/mapper") / name
    finally:
        run("dmsetup", "remove", "--retry", name)
