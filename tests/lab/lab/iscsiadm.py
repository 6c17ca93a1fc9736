"""iscsiadm, for the lab's own tests and for cleaning up; the library under test never uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lab.network import Portal
from lab.target import Chap

DATABASES = (Path("/etc/iscsi"), Path("/var/lib/iscsi"))  # the second since Debian 13


def iscsiadm(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run it; the caller judges the status."""
    return subprocess.run(["iscsiadm", *arguments], capture_output=True, text=True, timeout=timeout)


def login(
    portal: Portal, iqn: str, chap: Chap | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Make a node record and log in. ``settings``: record names with ``__`` for dots."""
    node = ("-m", "node", "-T", iqn, "-p", str(portal))
    values = {"node.session.initial_login_retry_max": "1"}
    if chap:
        values["node.session.auth.authmethod"] = "CHAP"
        values["node.session.auth.username"] = chap.user
        values["node.session.auth.password"] = chap.password
        if chap.mutual_user:
            values["node.session.auth.username_in"] = chap.mutual_user
            values["node.session.auth.password_in"] = chap.mutual_password
    values |= {name.replace("__", "."): value for name, value in settings.items()}
    made = iscsiadm(*node, "-o", "new")
    if made.returncode:
        return made
    for name, value in values.items():
        updated = iscsiadm(*node, "-o", "update", "-n", name, "-v", value)
        if updated.returncode:
            return updated
    return iscsiadm(*node, "--login")


def logout_all() -> subprocess.CompletedProcess[str]:
    """Ask for the logout of every session, once."""
    return iscsiadm("-m", "session", "-u")


def forget_records() -> None:
    """Empty the node and discovery databases."""
    for database in DATABASES:
        for name in ("nodes", "send_targets", "ifaces", "static"):
            shutil.rmtree(database / name, ignore_errors=True)
