# SPDX-License-Identifier: Apache-2.0
"""Attach iSCSI volumes as dm-multipath devices without starting a process.

    import manypath

    attachment = manypath.connect(connection_info["data"])
    open(attachment.path, "rb")
    manypath.disconnect(connection_info["data"])

Importing the package costs nothing: each name is loaded at its first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from manypath import errors as errors
    from manypath._types import (
        Attachment,
        Credentials,
        Detachment,
        DetachTimings,
        Discovered,
        DiscoveredTarget,
        Discovery,
        Disk,
        ExtendTimings,
        Extension,
        Flush,
        Inventory,
        Map,
        Path,
        PathState,
        PathTimes,
        Plan,
        Session,
        Target,
        Timings,
    )
    from manypath.address import NamedPortal, Portal
    from manypath.connector import connector_properties
    from manypath.errors import ManypathError
    from manypath.operations import connect, disconnect, discover, extend, inventory
    from manypath.properties import plan

    __version__: str

__all__ = [
    "Attachment",
    "Credentials",
    "DetachTimings",
    "Detachment",
    "Discovered",
    "DiscoveredTarget",
    "Discovery",
    "Disk",
    "ExtendTimings",
    "Extension",
    "Flush",
    "Inventory",
    "ManypathError",
    "Map",
    "NamedPortal",
    "Path",
    "PathState",
    "PathTimes",
    "Plan",
    "Portal",
    "Session",
    "Target",
    "Timings",
    "connect",
    "connector_properties",
    "disconnect",
    "discover",
    "errors",
    "extend",
    "inventory",
    "plan",
]

_MODULES = {
    "ManypathError": "errors",
    "NamedPortal": "address",
    "Portal": "address",
    "connect": "operations",
    "connector_properties": "connector",
    "disconnect": "operations",
    "discover": "operations",
    "extend": "operations",
    "inventory": "operations",
    "plan": "properties",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "__version__":
        value = importlib.import_module("manypath._core").version()
    elif name == "errors":
        return importlib.import_module("manypath.errors")
    elif name in __all__:
        module = importlib.import_module(f"manypath.{_MODULES.get(name, '_types')}")
        value = getattr(module, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
