"""What may sit on a disk: other maps, volume groups, arrays, file systems, swap."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.blockdev import write_direct
from lab.tools import run, wait_until

# linux/raid/md_u.h: an array without metadata, as "mdadm --build" makes it
MD_SET_ARRAY_INFO = 0x40480923
MD_ADD_NEW_DISK = 0x40140921
MD_RUN_ARRAY = 0x400C0930
MD_STOP_ARRAY = 0x932
MD_ACTIVE_SYNC = 0b110
MD_CHUNK = 64 << 10

# The lab's own configuration hides everything but loop devices.
LVM = ("--config", 'devices { filter = ["a|.*|"] global_filter = ["a|.*|"] }')


def sectors(device: str | Path) -> int:
    """Of a kernel name or a path in /dev."""
    return int(Path(f"/sys/block/{Path(device).resolve().name}/size").read_text())


@contextmanager
def linear_map(device: str | Path, name: str, uuid: str) -> Iterator[Path]:
    """All of a disk under another name."""
    table = f"0 {sectors(device)} linear {device} 0"
    run("dmsetup", "create", name, "--uuid", uuid, "--table", table)
    try:
        yield Path("/dev/mapper") / name
    finally:
        run("dmsetup", "remove", "--retry", name)


@contextmanager
def logical_volume(device: str | Path, group: str) -> Iterator[Path]:
    """A volume group on a disk, with one active logical volume "root"."""
    run("pvcreate", *LVM, "--yes", str(device))
    run("vgcreate", *LVM, group, str(device))
    run("lvcreate", *LVM, "--yes", "--zero", "n", "--extents", "50%FREE", "--name", "root", group)
    try:
        yield Path("/dev/mapper") / f"{group}-root"
    finally:
        run("vgchange", *LVM, "--activate", "n", group)


@contextmanager
def array(device: str | Path, name: str) -> Iterator[Path]:
    """An md array of that one disk."""
    run("modprobe", "-a", "md_mod", "raid0")
    Path("/sys/module/md_mod/parameters/new_array").write_text(name)
    node = Path("/dev") / name
    wait_until(node.exists, f"{node} is there")
    number = Path(device).stat().st_rdev
    fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        info = [0, 90, 0, 0, 0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 0, 0, MD_CHUNK]
        fcntl.ioctl(fd, MD_SET_ARRAY_INFO, struct.pack("18i", *info))
        disk = [0, os.major(number), os.minor(number), 0, MD_ACTIVE_SYNC]
        fcntl.ioctl(fd, MD_ADD_NEW_DISK, struct.pack("5i", *disk))
        fcntl.ioctl(fd, MD_RUN_ARRAY, bytes(12))
    finally:
        os.close(fd)
    try:
        yield node
    finally:
        run("udevadm", "settle", "--timeout=60")  # it looks at the array too, and must be done
        fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, MD_STOP_ARRAY, 0)
        finally:
            os.close(fd)


@contextmanager
def mounted(device: str | Path, where: Path) -> Iterator[Path]:
    """A new file system on a device."""
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "nodiscard", str(device))
    where.mkdir(parents=True, exist_ok=True)
    run("mount", str(device), str(where))
    try:
        yield where
    finally:
        run("umount", str(where))


@contextmanager
def swap(device: str | Path) -> Iterator[Path]:
    """Swap space on a device."""
    run("mkswap", str(device))
    run("swapon", str(device))
    try:
        yield Path(device)
    finally:
        run("swapoff", str(device))


def partition(device: str | Path) -> None:
    """Write a table with one partition: all but the first MiB."""
    first = 2048
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), first, sectors(device) - first)
    write_direct(device, entry.rjust(446 + 16, b"\0").ljust(510, b"\0") + b"\x55\xaa")
