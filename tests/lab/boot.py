#!/usr/bin/env python3
"""Boot the lab's guest and run one command, or a shell, in it.

    boot.py run [--timeout S] [-e KEY=VAL]... -- python3 -m pytest tests/lab
    boot.py shell

``run`` streams the command's output and exits with its status. 124: timed out. 125: the guest
died, never came up, or something is missing on this host.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import secrets
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from image import Image, LabError, default_suite, ensure_image, make_squashfs

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_STAGE = PROJECT / "build" / "lab" / "stage"
QEMU = "qemu-system-x86_64"
RESULTS = PROJECT / "build" / "lab" / "results"
EXIT_TIMEOUT = 124
EXIT_LAB = 125
CONSOLE_TAIL = 60  # lines
PASSED_ON = ("LAB_SUITE", "CI")
Filter = Callable[[tarfile.TarInfo], tarfile.TarInfo]

KERNEL_ARGUMENTS = (
    "console=ttyS0",
    "log_buf_len=16M",  # a test reads the kernel log at its end only
    "loglevel=4",  # the serial line is slow to emulate: warnings and worse; dmesg has the rest
    "panic=-1",  # with -no-reboot: a panic ends QEMU at once
    "oops=panic",  # an oops fails the run with its trace, instead of something hanging later
    "tsc=reliable",  # no long clock calibration checks
    "no_timer_check",
    "mitigations=off",  # they only cost emulated instructions here
    "audit=0",
    "apparmor=0",
    "selinux=0",
    "nmi_watchdog=0",
    "transparent_hugepage=never",  # khugepaged would make a process grow by 2 MiB at any time
    # A starved host stops vCPUs for seconds: that is no bug of the guest.
    "watchdog_thresh=60",
    "rcupdate.rcu_cpu_stall_timeout=120",
    "systemd.show_status=no",
    "systemd.firstboot=no",
    "systemd.machine_id=0123456789abcdef0123456789abcdef",  # else first-boot work
    "rd.udev.log_level=err",
)


@dataclass(frozen=True)
class Job:
    """What the guest is booted for."""

    mode: str  # "run" or "shell"
    command: Sequence[str] = ()
    environment: dict[str, str] = field(default_factory=dict)
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    def script(self) -> str:
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in self.environment.items())
        return f"cd /stage\n{exports}exec {shlex.join(self.command)}\n"

    def conf(self) -> str:
        return f"mode={self.mode}\nnonce={self.nonce}\n"


# --- what the guest is given ----------------------------------------------------------------------


def pack_stage(stage: Path | None, job: Job, work: Path) -> Path:
    """A disk image with the stage and the job. No stage given: the default one, with the tests/.

    Not 9p: under emulation every file access of pytest would be a round trip, and a share has traps
    of its own (submounts, inode numbers).
    """
    (work / "job").write_text(job.script())
    (work / "job.conf").write_text(job.conf())

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    tarball = work / "stage.tar"
    with tarfile.open(tarball, "w") as archive:
        if stage is None:
            add_default_stage(archive, owned_by_root)
        else:
            archive.add(stage, "stage", filter=owned_by_root)
        archive.add(work / "job", "job", filter=owned_by_root)
        archive.add(work / "job.conf", "job.conf", filter=owned_by_root)
    disk = work / "stage.squashfs"
    make_squashfs(tarball, disk)
    tarball.unlink()
    return disk


def add_default_stage(archive: tarfile.TarFile, owned_by_root: Filter) -> None:
    """What was built into the default stage, plus the tests from the source tree.

    Straight into the archive: a copy in between would be a race between two guests being started.
    """
    DEFAULT_STAGE.mkdir(parents=True, exist_ok=True)
    archive.add(DEFAULT_STAGE, "stage", recursive=False, filter=owned_by_root)
    for child in sorted(DEFAULT_STAGE.iterdir()):
        if child.name != "tests":
            archive.add(child, f"stage/{child.name}", filter=owned_by_root)

    def tests_only(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in member.name else owned_by_root(member)

    archive.add(PROJECT / "tests", "stage/tests", filter=tests_only)


# --- QEMU -----------------------------------------------------------------------------------------


def kvm_works(work: Path) -> bool:
    """Whether a vCPU really executes instructions; /dev/kvm may exist and be of no use.

    The probe is a firmware whose reset vector writes to the debug-exit port: only a running vCPU
    can make QEMU exit with that status.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    firmware = bytearray(b"\xf4" * 65536)
    # mov dx, 0x501; mov al, 0x10; out dx, al; hlt
    firmware[0xFFF0:0xFFF7] = b"\xba\x01\x05\xb0\x10\xee\xf4"
    path = work / "probe.bin"
    path.write_bytes(firmware)
    command = [QEMU, "-accel", "kvm", "-machine", "pc", "-cpu", "host", "-smp", "2", "-m", "64"]
    command += ["-nodefaults", "-display", "none", "-bios", str(path)]
    command += ["-device", "isa-debug-exit,iobase=0x501,iosize=4"]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == (0x10 << 1 | 1)


def qemu_command(
    image: Image, disk: Path, results: Path, console: Path, job: Job, work: Path, out_fd: int
) -> list[str]:
    if kvm_works(work):
        accel = ["-accel", "kvm", "-cpu", "host"]
    else:
        # One host thread per vCPU, and every instruction set the emulator has.
        accel = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
    command = [QEMU, *accel]
    command += ["-smp", os.environ.get("LAB_CPUS", "2")]
    command += ["-m", os.environ.get("LAB_MEMORY", "3072")]
    # Nothing but what is listed: every device costs probing time in the guest.
    command += ["-machine", "pc,usb=off,vmport=off,graphics=off", "-nodefaults", "-no-user-config"]
    command += ["-display", "none", "-name", "manypath-lab"]
    command += ["-no-reboot"]  # panic=-1 reboots: make it an exit instead
    # Kernel straight from the host: no boot loader, no boot disk.
    command += ["-kernel", str(image.kernel), "-initrd", str(image.initramfs)]
    command += ["-append", " ".join(KERNEL_ARGUMENTS)]
    # vda: the image, vdb: stage and job. Read-only: every boot starts clean, and boots cannot
    # disturb the cache or one another.
    for name, path in (("root", image.root), ("stage", disk)):
        command += ["-drive", f"file={path},format=raw,if=none,id={name},readonly=on,aio=threads"]
        command += ["-device", f"virtio-blk-pci,drive={name},disable-legacy=on"]
    # Results are written straight to a plain folder of the host, and survive a guest that hangs.
    # security_model=none: owners need not be kept, and no rights are needed for it.
    command += ["-fsdev", f"local,id=results,path={results},security_model=none,multidevs=remap"]
    command += ["-device", "virtio-9p-pci,fsdev=results,mount_tag=results,disable-legacy=on"]
    # Kernel console, kept in a file.
    command += ["-chardev", f"file,id=console,path={console}", "-serial", "chardev:console"]
    command += ["-device", "virtio-serial-pci,disable-legacy=on"]
    if job.mode == "shell":
        # The terminal itself; signal=off lets ^C through to the guest.
        command += ["-chardev", "stdio,id=terminal,signal=off"]
        command += ["-device", "virtconsole,chardev=terminal"]
    else:
        command += ["-chardev", f"socket,id=out,fd={out_fd}"]
        command += ["-device", "virtserialport,chardev=out,name=lab.out"]
    return command


def _die_with_parent() -> None:
    """In the child before exec: no orphaned guest when this process is killed."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


# An emulated guest with two CPUs dies now and then while it boots: QEMU runs a breakpoint that the
# kernel has patched over already (oops "int3" in sched_clock_cpu; QEMU 7.2, Linux 6.12).
BOOTS = 3

# --- running --------------------------------------------------------------------------------------


class Output:
    """Takes the guest's marks (``NUL nonce word [status] newline``) out of the stream."""

    def __init__(self, nonce: str) -> None:
        self._mark = b"\0" + nonce.encode() + b" "
        self._held = b""
        self.started = False
        self.status: int | None = None

    def feed(self, data: bytes) -> bytes:
        """Returns what is to be shown; sets ``started`` and ``status`` on the way."""
        data = self._held + data
        self._held = b""
        shown = b""
        while data:
            at = data.find(b"\0")
            if at < 0:
                return shown + data
            shown, data = shown + data[:at], data[at:]
            if data.startswith(self._mark):
                line, newline, rest = data.partition(b"\n")
                if not newline:
                    break
                words = line[len(self._mark) :].split()
                if words[0] == b"start":
                    self.started = True
                else:
                    self.status = int(words[1])
                data = rest
            elif self._mark.startswith(data):  # perhaps a mark cut in two
                break
            else:
                shown, data = shown + data[:1], data[1:]
        self._held = data
        return shown


def stream(
    ours: socket.socket, output: Output, boot_deadline: float, deadline: float
) -> str | None:
    """Copy output until the end mark; otherwise say what went wrong."""
    while output.status is None:
        now = time.monotonic()
        if now >= deadline:
            return "timeout"
        if not output.started and now >= boot_deadline:
            return "boot"
        limit = deadline if output.started else min(deadline, boot_deadline)
        if not select.select([ours], [], [], min(limit - now, 1.0))[0]:
            continue
        try:
            data = ours.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            return "died"
        sys.stdout.buffer.write(output.feed(data))
        sys.stdout.buffer.flush()
    return None


def print_console_tail(console: Path) -> None:
    lines = console.read_text(errors="replace").splitlines() if console.exists() else []
    print(f"lab: --- last lines of the guest's console ({console}) ---", file=sys.stderr)
    print("\n".join(lines[-CONSOLE_TAIL:]), file=sys.stderr)
    print("lab: --- end of console ---", file=sys.stderr, flush=True)


def run_guest(job: Job, arguments: argparse.Namespace) -> int:
    if not shutil.which(QEMU):
        raise LabError("missing on this host: apt-get install qemu-system-x86")
    began = time.monotonic()
    image = ensure_image(arguments.suite)
    results: Path = arguments.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    console: Path = results.parent / f"{results.name}-console.log"
    lock = console.open("a")  # held until we end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LabError(
            f"another guest writes to {results}: give this one its own --results"
        ) from None
    lock.truncate(0)
    with tempfile.TemporaryDirectory(prefix="manypath-lab-") as folder:
        work = Path(folder)
        disk = pack_stage(arguments.stage, job, work)
        for attempt in range(BOOTS):
            ours, theirs = socket.socketpair()
            command = qemu_command(image, disk, results, console, job, work, theirs.fileno())
            stdin = None if job.mode == "shell" else subprocess.DEVNULL
            booted = time.monotonic()
            qemu = subprocess.Popen(
                command, stdin=stdin, pass_fds=[theirs.fileno()], preexec_fn=_die_with_parent
            )
            theirs.close()
            try:
                if job.mode == "shell":
                    return qemu.wait()
                output = Output(job.nonce)
                boot_deadline = booted + arguments.boot_timeout
                trouble = stream(ours, output, boot_deadline, booted + arguments.timeout)
            finally:
                # The root is read-only and results are on the host already: nothing to shut down.
                qemu.kill()
                qemu.wait()
                ours.close()
            if trouble != "died" or output.started or attempt + 1 == BOOTS:
                break
            print_console_tail(console)
            print("lab: the guest died before its command began; booting it again", file=sys.stderr)
    if trouble is None:
        assert output.status is not None
        if arguments.verbose:
            now = time.monotonic()
            print(
                f"lab: {booted - began:.1f} s before QEMU, {now - booted:.1f} s in it",
                file=sys.stderr,
            )
        return output.status
    print_console_tail(console)
    if trouble == "timeout":
        print(f"lab: TIMEOUT: not finished after {arguments.timeout:g} s", file=sys.stderr)
        return EXIT_TIMEOUT
    if trouble == "boot":
        raise LabError(f"the guest did not come up within {arguments.boot_timeout:g} s")
    raise LabError("the guest died (panic, or QEMU failed)")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--suite", default=default_suite(), help="bookworm or trixie [LAB_SUITE]")
    common.add_argument("--stage", type=Path, help=f"default: {DEFAULT_STAGE}, with fresh tests/")
    common.add_argument("--results", type=Path, default=RESULTS, help="appears as /results")
    common.add_argument("-e", "--env", action="append", default=[], metavar="KEY=VAL")
    common.add_argument("-v", "--verbose", action="store_true", help="say how long things took")
    modes = parser.add_subparsers(dest="mode", required=True)
    run = modes.add_parser("run", parents=[common], help="run one command")
    run.add_argument("--timeout", type=float, default=900, help="seconds, boot included")
    run.add_argument("--boot-timeout", type=float, default=120, help="seconds to the command")
    run.add_argument("command", nargs="+")
    modes.add_parser("shell", parents=[common], help="an interactive root shell")
    return parser.parse_args(argv)


def environment(arguments: argparse.Namespace) -> dict[str, str]:
    values = {"PYTHONPATH": "/stage/site-packages:/stage/tests/lab", "PYTHONDONTWRITEBYTECODE": "1"}
    values |= {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    values["LAB_SUITE"] = arguments.suite
    for item in arguments.env:
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise LabError(f"not KEY=VAL: {item!r}")
        values[key] = value
    return values


def main() -> int:
    arguments = parse()
    # Turn a polite kill into an exception, so that the guest goes with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        command = getattr(arguments, "command", ())
        return run_guest(Job(arguments.mode, command, environment(arguments)), arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return EXIT_LAB
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
