#!/usr/bin/env python3
"""Build (or find in the cache) the lab's guest image; print the folder that holds it.

An image is three files: ``root.squashfs`` (the guest's read-only root), ``kernel`` and
``initramfs``. It is made by mmdebstrap from Debian packages and kept in a folder named after a hash
of its recipe, so an edited recipe rebuilds and an unchanged one costs a few milliseconds. Works as
root and, through mmdebstrap's unshare mode, as a plain user.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import lzma
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "image"
SUITES = ("bookworm", "trixie")
UNUSED_FOR = 14 * 86400  # seconds after which an image is thrown away
HOST_TOOLS = {"mmdebstrap": "mmdebstrap", "tar2sqfs": "squashfs-tools-ng"}

# Loaded by the initramfs before systemd starts; dependencies are added from modules.dep.
EARLY_MODULES = (
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "squashfs",
    "overlay",
    "9pnet_virtio",
    "9p",
)


class LabError(Exception):
    """A failure that is explained in words and needs no traceback."""


@dataclass(frozen=True)
class Image:
    """The files one guest boots from."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root.squashfs"

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initramfs(self) -> Path:
        return self.folder / "initramfs"

    def complete(self) -> bool:
        return all(file.is_file() for file in (self.root, self.kernel, self.initramfs))


def cache_root() -> Path:
    """Where images are kept between runs."""
    if own := os.environ.get("MANYPATH_CACHE"):
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(xdg) / "manypath"


def default_suite() -> str:
    return os.environ.get("LAB_SUITE") or SUITES[0]


def recipe_hash(suite: str) -> str:
    """Hash of everything that decides what an image contains."""
    digest = hashlib.sha256(suite.encode())
    files = sorted(file for file in RECIPE.rglob("*") if file.is_file())
    for file in [Path(__file__), *files]:
        name = file.name if file == Path(__file__) else str(file.relative_to(RECIPE))
        digest.update(f"\0{name}\0{stat.S_IMODE(file.stat().st_mode) & 0o111:o}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def ensure_image(suite: str | None = None) -> Image:
    """The image of ``suite``, built first if the cache does not hold it."""
    suite = suite or default_suite()
    if suite not in SUITES:
        raise LabError(f"unknown suite {suite!r} (LAB_SUITE): one of {', '.join(SUITES)}")
    images = cache_root() / "lab-images"
    image = Image(images / f"{suite}-{recipe_hash(suite)}")
    if image.complete():
        os.utime(image.folder)  # last use
        return image
    images.mkdir(parents=True, exist_ok=True)
    with _locked(images / f"{suite}.lock"):
        if not image.complete():  # somebody else may have built it while we waited
            _build(suite, image, images)
    return image


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(suite: str, image: Image, images: Path) -> None:
    missing = [package for tool, package in HOST_TOOLS.items() if not shutil.which(tool)]
    if missing:
        raise LabError(f"missing on this host: apt-get install {' '.join(missing)}")
    began = time.monotonic()
    print(f"lab: building the {suite} guest image", file=sys.stderr, flush=True)
    for old in images.glob(f".{suite}-*"):  # left by an interrupted build; we hold the lock
        shutil.rmtree(old)
    work = Path(tempfile.mkdtemp(prefix=f".{suite}-", dir=images))
    try:
        tarball = work / "root.tar"
        _debootstrap(suite, tarball)
        kernel, initramfs = boot_files(tarball)
        fresh = Image(work)
        fresh.kernel.write_bytes(kernel)
        fresh.initramfs.write_bytes(initramfs)
        make_squashfs(tarball, fresh.root)
        tarball.unlink()
        work.chmod(0o755)
        if image.folder.exists():
            shutil.rmtree(image.folder)
        work.rename(image.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for old in images.glob("*-*"):  # of older recipes, or of another checkout that is not used
        if old.stat().st_mtime < time.time() - UNUSED_FOR:
            shutil.rmtree(old, ignore_errors=True)
    size = sum(file.stat().st_size for file in image.folder.iterdir()) >> 20
    took = time.monotonic() - began
    print(f"lab: image built in {took:.0f} s, {size} MiB: {image.folder}", file=sys.stderr)


def _debootstrap(suite: str, tarball: Path) -> None:
    lines = (RECIPE / "packages.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    excluded = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=essential",
        "--architectures=amd64",
        "--components=main",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        *_apt_proxy_options(),
        *(f"--dpkgopt=path-exclude={path}" for path in excluded),
        f"--customize-hook=copy-in {RECIPE}/customize.sh /tmp",
        '--customize-hook=chroot "$1" sh /tmp/customize.sh',
        '--customize-hook=rm "$1/tmp/customize.sh"',
        "--customize-hook=tar-in {overlay} /",
        suite,
        str(tarball),
        _mirror(),
    ]
    overlay = tarball.with_name("overlay.tar")
    _tar_tree(RECIPE / "rootfs", overlay)
    command = [argument.replace("{overlay}", str(overlay)) for argument in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL)
    overlay.unlink()
    if done.returncode:
        raise LabError(f"mmdebstrap failed with {done.returncode}")


def _mirror() -> str:
    """LAB_MIRROR, else the mirror this host's apt takes Debian from, else Debian's own name."""
    if own := os.environ.get("LAB_MIRROR"):
        return own
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(
        [*command, "Origin: Debian", "Label: Debian"], capture_output=True, text=True
    )
    uris = [uri for uri in listed.stdout.split() if uri.startswith(("http://", "https://"))]
    return uris[0] if uris else "http://deb.debian.org/debian"


def _apt_proxy_options() -> list[str]:
    """mmdebstrap does not read the host's apt.conf; hand its proxies on."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True).stdout
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy")
    return [f"--aptopt={line}" for line in dump.splitlines() if line.startswith(wanted)]


def _tar_tree(tree: Path, tarball: Path) -> None:
    """Archive a folder's content, owned by root whoever runs this."""

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with tarfile.open(tarball, "w") as archive:
        for child in sorted(tree.iterdir()):
            archive.add(child, child.name, filter=owned_by_root)


def make_squashfs(tarball: Path, target: Path) -> None:
    """lz4: unpacking is paid in emulated CPU at every boot, disk space is not."""
    with tarball.open("rb") as source:
        command = ["tar2sqfs", "--quiet", "--compressor", "lz4", "--force", str(target)]
        done = subprocess.run(command, stdin=source, capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"tar2sqfs failed with {done.returncode}: {done.stderr[-2000:]}")


def boot_files(tarball: Path) -> tuple[bytes, bytes]:
    """Kernel and initramfs, taken out of the root's archive."""
    with tarfile.open(tarball) as archive:
        members = {member.name.removeprefix("./"): member for member in archive}

        def read(name: str) -> bytes:
            member = archive.extractfile(members[name])
            assert member is not None, name
            return member.read()

        kernel = next(name for name in members if name.startswith("boot/vmlinuz-"))
        version = kernel.removeprefix("boot/vmlinuz-")
        modules = f"usr/lib/modules/{version}"
        if f"{modules}/modules.dep" not in members:
            modules = f"lib/modules/{version}"
        order = module_order(read(f"{modules}/modules.dep").decode(), EARLY_MODULES)
        cpio = Cpio()
        for folder in ("bin", "modules", "proc", "sys", "dev"):
            cpio.add(folder, stat.S_IFDIR | 0o755)
        busybox = next(n for n in ("usr/bin/busybox", "bin/busybox") if n in members)
        cpio.add("bin/busybox", stat.S_IFREG | 0o755, read(busybox))
        cpio.add("init", stat.S_IFREG | 0o755, (RECIPE / "init").read_bytes())
        names = []
        for path in order:
            content = read(f"{modules}/{path}")
            if path.endswith(".xz"):
                content = lzma.decompress(content)
            names.append(Path(path.removesuffix(".xz")).name)
            cpio.add(f"modules/{names[-1]}", stat.S_IFREG | 0o644, content)
        listing = "".join(f"{name}\n" for name in names).encode()
        cpio.add("modules/order", stat.S_IFREG | 0o644, listing)
        return uncompressed_kernel(read(kernel)), cpio.finish()


def uncompressed_kernel(bzimage: bytes) -> bytes:
    """The ELF kernel inside a bzImage, which QEMU starts through its PVH entry.

    Unpacking xz takes an emulated CPU about 5 s at every boot. Offsets: the kernel's
    Documentation/arch/x86/boot.rst.
    """
    setup_sectors = bzimage[0x1F1]
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    payload = bzimage[(setup_sectors + 1) * 512 + offset :][:length]
    if not payload.startswith(b"\xfd7zXZ"):
        return bzimage  # boots as well, only slower
    kernel = lzma.LZMADecompressor().decompress(payload)
    pvh_entry_note = struct.pack("<III", 4, 8, 18) + b"Xen\0"
    return kernel if pvh_entry_note in kernel else bzimage


def module_order(modules_dep: str, wanted: tuple[str, ...]) -> list[str]:
    """Paths of the wanted modules and what they need, in an order insmod accepts."""
    needs: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in modules_dep.splitlines():
        path, _, dependencies = line.partition(":")
        needs[path] = dependencies.split()
        by_name[Path(path).name.split(".ko")[0].replace("-", "_")] = path
    order: list[str] = []
    for name in wanted:
        if name not in by_name:
            continue  # built into this kernel
        path = by_name[name]
        # modules.dep lists the nearest dependency first, the deepest last.
        order += [item for item in [*reversed(needs[path]), path] if item not in order]
    return order


class Cpio:
    """Just enough of the "newc" format for an initramfs, so that no host tool is needed."""

    def __init__(self) -> None:
        self._out = io.BytesIO()
        self._inode = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = [self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0]
        self._out.write(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        self._pad()
        self._out.write(content)
        self._pad()

    def _pad(self) -> None:
        self._out.write(b"\0" * (-self._out.tell() % 4))

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0)
        return self._out.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build or find the lab's guest image.")
    parser.add_argument("--suite", default=default_suite(), choices=SUITES)
    arguments = parser.parse_args()
    try:
        print(ensure_image(arguments.suite).folder)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
