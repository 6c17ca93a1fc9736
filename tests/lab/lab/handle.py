"""The handle a test gets."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, Literal, Protocol, TypeVar

from lab.check import kernel_trouble, leaks
from lab.daemons import Iscsid, Multipathd
from lab.iscsiadm import forget_records, logout_all
from lab.kernel_log import KernelLog
from lab.network import PORT, How, Network, Portal
from lab.state import Snapshot, snapshot
from lab.target import Export, TargetServer, Volume
from lab.tools import run, wait_until

AT_REST = 20.0  # seconds for logins of iscsid's that nobody waits for
SETTLE = 10.0  # seconds the kernel gets to finish what a test started
UDEV = 600.0  # its queue is long after a hundred attaches on emulated processors


class Server(Protocol):
    """Something of a test's own that serves volumes."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Server)


class Lab:
    """Targets, network, daemons and state of one guest, for one test."""

    def __init__(self, network: Network | None = None) -> None:
        self.network = network or Network()
        self.targets = TargetServer()
        self.iscsid = Iscsid()
        self.multipathd = Multipathd()
        self.kernel_log = KernelLog()
        self._servers = ExitStack()
        self._before = snapshot()

    # --- set-up ----------------------------------------------------------------------------

    def portal(self, index: int, family: Literal[4, 6] = 4, port: int = PORT) -> Portal:
        return self.network.portal(index, family, port)

    def portals(self, count: int, family: Literal[4, 6] = 4) -> list[Portal]:
        """Portals 1..count."""
        return [self.portal(index, family) for index in range(1, count + 1)]

    def portal_at(self, address: str, port: int = PORT) -> Portal:
        return self.network.portal_at(address, port)

    def volume(self, size_mib: int = 64, name: str | None = None) -> Volume:
        return self.targets.volume(size_mib, name)

    def export(
        self, volumes: Volume | Sequence[Volume], portals: Sequence[Portal], **options: Any
    ) -> Export:
        """See ``TargetServer.export``."""
        return self.targets.export(volumes, portals, **options)

    def keep(self, server: S) -> S:
        """Close a server together with the lab, once no session needs it."""
        self._servers.callback(server.close)
        return server

    def cut(self, portal: Portal, how: How = "reject") -> None:
        self.network.cut(portal, how)

    def heal(self, portal: Portal | None = None) -> None:
        self.network.heal(portal)

    # --- state -----------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return snapshot()

    def klog(self) -> list[str]:
        """The kernel's messages since this test began."""
        return self.kernel_log.lines()

    def settle(self) -> None:
        """Wait until udev has handled every event."""
        run("udevadm", "settle", f"--timeout={UDEV:g}", timeout=UDEV + 10)

    def log_out(self) -> None:
        """Log every session out with iscsiadm. iscsid refuses while it reconnects one, and does not
        list one that it is only taking over: so again.
        """

        def gone() -> bool:
            if snapshot().sessions:
                logout_all()
            return not snapshot().sessions

        wait_until(gone, "iscsiadm logged all sessions out", 60)

    # --- the end ---------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """What is not as it was at the start; what only needs time to go away gets it."""
        with suppress(AssertionError):
            wait_until(lambda: not leaks(self._before, snapshot()), "clean", SETTLE)
        return leaks(self._before, snapshot()) + kernel_trouble(self.klog())

    def close(self) -> None:
        """Bring the guest back to the state after boot, whatever the test did."""
        self.network.heal()
        self.multipathd.end()
        self._remove_maps()
        self._end_sessions()
        self._remove_semaphores()
        forget_records()
        self.multipathd.forget()
        self._servers.close()
        self.targets.delete()
        self.settle()
        self.kernel_log.close()

    def _at_rest(self) -> bool:
        """iscsid logs in to nothing: each of its connections is that of a session that is up."""
        states = [session.state for session in snapshot().sessions]
        sockets = [line for line in run("ss", "-Htnp").splitlines() if '"iscsid"' in line]
        up = len(sockets) == len(states) and set(states) <= {"LOGGED_IN"}
        return up or not self.iscsid.pid

    def _end_sessions(self) -> None:
        """Log out, and stop iscsid. A login that it was at, for nobody any more, may still come
        through; it would be the next test's, with nobody behind its portal.
        """
        with suppress(AssertionError):
            wait_until(self._at_rest, "iscsid is at rest", AT_REST)
        for _ in range(3):
            if snapshot().sessions:
                if not self.iscsid.pid:
                    self.iscsid.restart()
                self.log_out()
            self.iscsid.stop()
            if not snapshot().sessions:
                return
        raise AssertionError(f"sessions come back: {snapshot().sessions}")

    def _remove_maps(self) -> None:
        for dm in snapshot().maps:
            if dm.kind == "mpath":  # else a write held back in the queue would block the removal
                run("dmsetup", "message", dm.name, "0", "fail_if_no_path", check=False)
        # Those on top of others come later in the listing; two rounds are enough for partitions.
        for _ in range(2):
            for dm in reversed(snapshot().maps):
                run("dmsetup", "remove", "--force", "--retry", dm.name, check=False)

    def _remove_semaphores(self) -> None:
        for key in set(snapshot().semaphores) - set(self._before.semaphores):
            run("ipcrm", "--semaphore-key", str(key), check=False)
