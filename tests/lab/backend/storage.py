"""Where the sample backend keeps its volumes: logical volumes, or files where there is no LVM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from lab.target import VOLUMES
from lab.tools import run


class Storage(Protocol):
    """Creates, extends and deletes volumes by name; sizes in MiB."""

    def create(self, name: str, size_mib: int) -> Path: ...

    def extend(self, name: str, size_mib: int) -> None: ...

    def delete(self, name: str) -> None: ...


class LogicalVolumes:
    """A logical volume for each volume."""

    def __init__(self, group: str) -> None:
        self._group = group

    def create(self, name: str, size_mib: int) -> Path:
        wiped = ("--wipesignatures", "y", "--zero", "y")
        run("lvcreate", "--yes", *wiped, "--size", f"{size_mib}m", "--name", name, self._group)
        return self._path(name)

    def extend(self, name: str, size_mib: int) -> None:
        run("lvextend", "--size", f"{size_mib}m", f"{self._group}/{name}")

    def delete(self, name: str) -> None:
        run("lvremove", "--force", f"{self._group}/{name}")

    def _path(self, name: str) -> Path:
        return Path("/dev") / self._group / name


class Files:
    """A sparse file for each volume."""

    def __init__(self, folder: Path = VOLUMES) -> None:
        self._folder = folder

    def create(self, name: str, size_mib: int) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path(name).open("xb") as file:
            file.truncate(size_mib << 20)
        return self._path(name)

    def extend(self, name: str, size_mib: int) -> None:
        with self._path(name).open("r+b") as file:
            file.truncate(size_mib << 20)

    def delete(self, name: str) -> None:
        self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self._folder / name


def storage_of(group: str | None) -> Storage:
    """Logical volumes in ``group``; files if there is none."""
    return LogicalVolumes(group) if group else Files()


@contextmanager
def volume_group(name: str = "sample", size_mib: int = 1024) -> Iterator[str]:
    """Make an LVM volume group on a loop device over a sparse file, and remove all three again."""
    VOLUMES.mkdir(parents=True, exist_ok=True)
    file = VOLUMES / f"{name}.group"
    run("modprobe", "loop")
    with ExitStack() as undo:
        undo.callback(file.unlink)
        with file.open("wb") as backing:
            backing.truncate(size_mib << 20)
        device = run("losetup", "--find", "--show", str(file)).strip()
        undo.callback(run, "losetup", "--detach", device)
        run("vgcreate", "--yes", name, device)
        undo.callback(run, "vgremove", "--yes", "--force", name)
        yield name
