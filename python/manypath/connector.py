# SPDX-License-Identifier: Apache-2.0
"""What a host tells Cinder about itself, read without a process."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Any

from manypath.address import shorten
from manypath.errors import InvalidRequestError, PermissionDeniedError, SystemCallError
from manypath.properties import iscsi_name

INITIATOR_FILE = "/etc/iscsi/initiatorname.iscsi"

#: Far away, so that the kernel takes the default route; nothing is sent there.
_FAR_AWAY = ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888"))
_DISCARD_PORT = 9


def connector_properties(
    *,
    multipath: bool,
    ip: str | None = None,
    host: str | None = None,
    initiator_file: str | os.PathLike[str] = INITIATOR_FILE,
) -> dict[str, Any]:
    """Return the connector that Cinder's ``initialize_connection`` asks for.

    ``multipath`` says whether the host will use all portals. ``ip`` is the address of the host,
    by default the one it would use on its default route, and ``host`` its name.
    """
    if not isinstance(multipath, bool):
        raise _invalid(f"multipath {shorten(multipath)} is not a bool; give True or False")
    return {
        "platform": os.uname().machine,  # platform.machine() may start uname(1)
        "os_type": sys.platform,
        "ip": _default_ip() if ip is None else _numeric(ip),
        "host": socket.gethostname() if host is None else _name(host),
        "multipath": multipath,
        "initiator": _initiator(Path(initiator_file)),
    }


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, phase="request")


def _numeric(ip: str) -> str:
    try:
        if isinstance(ip, str):
            return str(ipaddress.ip_address(ip))
    except ValueError:
        pass
    raise _invalid(
        f"ip {shorten(ip)} is not a numeric address; give one of this host, such as '192.0.2.1'"
    )


def _name(host: str) -> str:
    if not isinstance(host, str) or not host:
        raise _invalid(f"host {shorten(host)} is not a name; give the name Cinder knows, or None")
    return host


def _default_ip() -> str:
    for family, address in _FAR_AWAY:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                # This only looks up the route.
                probe.connect((address, _DISCARD_PORT))
                return str(probe.getsockname()[0])
        except OSError as error:
            last = error
    raise SystemCallError(
        f"this host has no default route ({last.strerror}), so its address is not known; "
        "give it as ip",
        phase="prepare",
        errno=last.errno,
    )


def _initiator(file: Path) -> str:
    for line in _read(file).splitlines():
        # As iscsid reads it: blanks are allowed around the sign, # begins a comment.
        key, _, value = line.partition("=")
        if key.strip() == "InitiatorName" and value.strip():
            return iscsi_name(f"{file}: InitiatorName", value.strip())
    raise _invalid(
        f"{file} has no line InitiatorName=; write the name of this host there, "
        "such as InitiatorName=iqn.2010-10.org.example:host"
    )


def _read(file: Path) -> str:
    try:
        # Whatever is not ASCII is no name, and is refused as such.
        return file.read_text(encoding="ascii", errors="backslashreplace")
    except PermissionError as error:
        raise PermissionDeniedError(
            f"cannot read {file}: {error.strerror}; run as root, or with CAP_DAC_READ_SEARCH",
            phase="prepare",
            errno=error.errno,
        ) from error
    except OSError as error:
        raise SystemCallError(
            f"cannot read {file}: {error.strerror}; install open-iscsi, or write the file with a "
            "line InitiatorName=iqn.2010-10.org.example:host",
            phase="prepare",
            errno=error.errno,
        ) from error
