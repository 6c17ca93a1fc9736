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
        Detachment,
        DetachTimings,
        Disk,
        Inventory,
        Map,
        Path,
        PathState,
        PathTimes,
        Session,
        Target,
        Timings,
    )
    from manypath.address import Portal
    from manypath.errors import ManypathError
    from manypath.operations import connect, disconnect, inventory

    __version__: str

__all__ = [
    "Attachment",
    "DetachTimings",
    "Detachment",
    "Disk",
    "Inventory",
    "ManypathError",
    "Map",
    "Path",
    "PathState",
    "PathTimes",
    "Portal",
    "Session",
    "Target",
    "Timings",
    "connect",
    "disconnect",
    "errors",
    "inventory",
]

_MODULES = {
    "ManypathError": "errors",
    "Portal": "address",
    "connect": "operations",
    "disconnect": "operations",
    "inventory": "operations",
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
