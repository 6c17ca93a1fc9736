"""Starting, stopping and killing the daemons."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from lab.tools import run, wait_until

ISCSID_SOCKET = "@ISCSIADM_ABSTRACT_NAMESPACE"
MULTIPATHD_SOCKET = "@/org/kernel/linux/storage/multipathd"
ISCSID_LOG = Path("/run/lab-iscsid.log")
MULTIPATH_CONF = Path("/etc/multipath.conf")

Start = Literal["direct", "socket"]

STOP = 60.0  # seconds; it first ends what it is doing


def listening(name: str) -> bool:
    """Whether a unix socket of that name exists; looking connects to nobody and starts nothing."""
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return any(line.split()[-1] == name for line in lines)


def main_pid(unit: str) -> int | None:
    """Main process of a systemd service, or None."""
    pid = int(run("systemctl", "show", "--property=MainPID", "--value", unit))
    return pid or None


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class Iscsid:
    """open-iscsi's daemon, started directly or by systemd's socket activation."""

    def __init__(self) -> None:
        self.how: Start = "direct"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, how: Start = "direct") -> None:
        """``direct``: the daemon runs at return. ``socket``: the first connection starts it."""
        if self.listening:
            raise AssertionError("iscsid is started already")
        self.how = how
        if how == "socket":
            run("systemctl", "start", "iscsid.socket")
            return
        with ISCSID_LOG.open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/iscsid", "-f"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # when it ends, iscsid signals its whole process group
            )
        wait_until(lambda: self.listening, "iscsid listens")

    @property
    def listening(self) -> bool:
        """Somebody, iscsid or systemd for it, holds the socket."""
        return listening(ISCSID_SOCKET)

    @property
    def pid(self) -> int | None:
        """The daemon's process, or None if it does not run."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        return main_pid("iscsid.service")

    def log(self) -> list[str]:
        """What a directly started iscsid has printed since boot."""
        return ISCSID_LOG.read_text().splitlines() if ISCSID_LOG.exists() else []

    def kill(self) -> None:
        """SIGKILL. A socket-activated daemon comes back with the next connection."""
        pid = self.pid
        if pid is None:
            raise AssertionError("iscsid does not run")
        os.kill(pid, signal.SIGKILL)
        self._reap(pid)

    def stop(self) -> None:
        """Stop the daemon, and systemd's listening for it; sessions stay in the kernel."""
        if self._process is not None:
            self._terminate(self._process)
            self._reap(self._process.pid)
        # Both at once: a connection between two stops would start the service again.
        run("systemctl", "stop", "iscsid.socket", "iscsid.service")
        wait_until(lambda: not self.listening, "nobody listens for iscsid")

    def restart(self) -> None:
        """Stop or find dead, then start in the way it was started."""
        self.stop()
        self.start(self.how)

    @staticmethod
    def _terminate(process: subprocess.Popen[bytes]) -> None:
        """Ask until it ends: iscsid may overlook a SIGTERM.

        Its event loop looks whether it is to end, runs its actors, then polls without a limit
        (open-iscsi usr/event_poll.c): a signal that comes while the actors run is noticed with the
        next event, which on an idle host does not come.
        """
        for _ in range(int(STOP)):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
                return

    def _reap(self, pid: int) -> None:
        if self._process is not None:
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
                raise AssertionError(f"iscsid did not end within {STOP:g} s of SIGTERM") from None
            finally:
                self._process = None
        else:
            wait_until(lambda: _gone(pid), "iscsid is gone")


class Multipathd:
    """multipathd, as the distribution's own service, without its socket unit."""

    def __init__(self) -> None:
        self._conf = ""

    def configure(
        self,
        find_multipaths: str = "strict",
        user_friendly_names: bool = False,
        defaults: str = "",
        extra: str = "",
    ) -> None:
        """Write multipath.conf: two common settings, more lines for ``defaults``, more sections."""
        names = "yes" if user_friendly_names else "no"
        self.configure_text(
            f"defaults {{\n    find_multipaths {find_multipaths}\n"
            f"    user_friendly_names {names}\n{defaults}\n}}\n{extra}\n"
        )

    def configure_text(self, text: str) -> None:
        """Write multipath.conf as it is given."""
        self._conf = text
        MULTIPATH_CONF.write_text(text)

    def start(self, text: str = "") -> None:
        """Start it and wait until it answers.

        ``configure`` first for anything but defaults, or give the text of multipath.conf.
        """
        if text:
            self.configure_text(text)
        elif not self._conf:
            self.configure()
        run("systemctl", "reset-failed", "multipathd.service", check=False)
        run("systemctl", "start", "multipathd.service")
        self._wait_until_idle()

    def _wait_until_idle(self) -> None:
        wait_until(
            lambda: run("multipathd", "show", "daemon", check=False).rstrip().endswith("idle"),
            "multipathd is idle",
            60,
        )

    def reconfigure(self) -> None:
        """Have it read its configuration again, and wait until it has done what follows from it."""
        wait_until(
            lambda: run("multipathd", "reconfigure", check=False).strip() == "ok",
            "multipathd accepts reconfigure",
        )
        self._wait_until_idle()

    def paths_of(self, wwid: str) -> set[str]:
        """The disks that it has as active paths of that volume."""
        answer = run("multipathd", "show", "paths", "raw", "format", "%d|%w|%t", check=False)
        rows = [[word.strip() for word in line.split("|")] for line in answer.splitlines()]
        return {row[0] for row in rows if row[1:] == [wwid, "active"]}

    def wait_adopted(self, wwid: str, paths: Iterable[str], timeout: float = 60) -> None:
        """Until it has taken the map over with exactly these disks, all of them usable."""
        wanted = set(paths)
        wait_until(
            lambda: self.paths_of(wwid) == wanted,
            f"multipathd has {', '.join(sorted(wanted))} for {wwid}",
            timeout,
        )

    @property
    def pid(self) -> int | None:
        return main_pid("multipathd.service")

    @property
    def listening(self) -> bool:
        return listening(MULTIPATHD_SOCKET)

    def kill(self) -> None:
        """SIGKILL; nothing restarts it."""
        pid = self.pid
        if pid is None:
            raise AssertionError("multipathd does not run")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _gone(pid) and not self.pid, "multipathd is gone")

    def pause(self) -> None:
        """SIGSTOP: it still runs by its pid file's lock, and does nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is None:
            raise AssertionError("multipathd does not run")
        os.kill(pid, number)

    def stop(self) -> None:
        run("systemctl", "stop", "multipathd.socket", "multipathd.service")
        wait_until(lambda: not self.listening, "nobody listens for multipathd")

    def end(self) -> None:
        """The quick end, with SIGKILL: it leaves its maps as they are, queueing ones too."""
        if self.listening or self.pid:
            run("systemctl", "kill", "--signal=KILL", "multipathd.service", check=False)
            self.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def log(self) -> list[str]:
        """The last that it told the journal."""
        unit = ("--unit=multipathd.service", "--lines=200")
        return run("journalctl", "--no-pager", "--output=short-monotonic", *unit).splitlines()

    def command(self, *words: str) -> str:
        """What ``multipathd show ...`` and the like answer."""
        return run("multipathd", *words)

    def forget(self) -> None:
        """Remove configuration and memory (wwids, bindings, failed wwids): the state after boot."""
        self._conf = ""
        MULTIPATH_CONF.unlink(missing_ok=True)
        for folder in (Path("/etc/multipath"), Path("/run/multipath")):
            shutil.rmtree(folder, ignore_errors=True)
