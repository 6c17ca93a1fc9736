# SPDX-License-Identifier: Apache-2.0
"""How a typed caller uses the package. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, assert_type

import manypath
from manypath import errors


def attach(connection_info: Mapping[str, Any]) -> str:
    try:
        attachment = manypath.connect(connection_info["data"], timeout=30, min_paths=2)
    except errors.PortalError as error:
        assert_type(error.portal, manypath.Portal | None)
        assert_type(error.errno, int | None)
        assert_type(error.paths, tuple[manypath.Path, ...])
        raise
    except ValueError:
        raise
    assert_type(attachment, manypath.Attachment)
    assert_type(attachment.size_bytes, int)
    assert_type(attachment.timings.login, float)
    for path in attachment.paths:
        assert_type(path.portal.ip, IPv4Address | IPv6Address)
        assert_type(path.state, manypath.PathState)
        assert_type(path.error, manypath.ManypathError | None)
    return attachment.path


def detach(connection_info: Mapping[str, Any]) -> int:
    detachment = manypath.disconnect(connection_info)
    assert_type(detachment, manypath.Detachment)
    return detachment.sessions_kept


def grow(connection_info: Mapping[str, Any]) -> int:
    extension = manypath.extend(connection_info, size=2 << 30, timeout=30)
    assert_type(extension, manypath.Extension)
    assert_type(extension.timings, manypath.ExtendTimings)
    assert_type(extension.paths, tuple[manypath.Path, ...])
    return extension.size_bytes - extension.old_size_bytes


def look() -> list[str]:
    inventory = manypath.inventory()
    assert_type(inventory.maps, tuple[manypath.Map, ...])
    assert_type(inventory.disks[0].path_state, manypath.PathState | None)
    return [session.state for session in inventory.sessions]


def prepare(connection_info: Mapping[str, Any]) -> list[str]:
    plan = manypath.plan(connection_info, multipath=False, strict=True)
    assert_type(plan, manypath.Plan)
    assert_type(plan.chap, manypath.Credentials | None)
    if plan.discovery is not None:
        assert_type(plan.discovery.portals, tuple[manypath.Portal | manypath.NamedPortal, ...])
        assert_type(plan.discovery.iqn, str | None)
        return [str(portal) for portal in plan.discovery.portals]
    return [f"{target.portal} {target.iqn} {target.lun}" for target in plan.targets]


def ask() -> list[str]:
    found = manypath.discover("storage.example.org", timeout=5, initiator="iqn.2010-10.org.me:1")
    assert_type(found, manypath.Discovered)
    assert_type(found.targets[0], manypath.DiscoveredTarget)
    assert_type(found.targets[0].tag, int | None)
    return [target.iqn for target in found.targets]


def connector() -> dict[str, Any]:
    return manypath.connector_properties(multipath=True, host="node-7")


def wrong_uses() -> None:
    manypath.plan({}, "yes")  # type: ignore[arg-type]
    manypath.connector_properties()  # type: ignore[call-arg]
    manypath.NamedPortal(5)  # type: ignore[arg-type]
    manypath.connect({}, True)  # type: ignore[call-arg]
    manypath.connect({}, timeout="5")  # type: ignore[arg-type]
    manypath.disconnect([])  # type: ignore[arg-type]
    manypath.Portal("192.0.2.1")  # type: ignore[arg-type]
    manypath.inventory().sessions[0].sid = 5  # type: ignore[misc]


assert_type(manypath.__version__, str)
