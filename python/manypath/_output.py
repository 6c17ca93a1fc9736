# SPDX-License-Identifier: Apache-2.0
"""How the command line shows results and errors."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from manypath.address import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from manypath._types import (
        Attachment,
        Credentials,
        Detachment,
        DetachTimings,
        Discovered,
        Discovery,
        ExtendTimings,
        Extension,
        Inventory,
        Path,
        Plan,
        Timings,
    )
    from manypath.errors import ManypathError


def print_json(value: dict[str, Any]) -> None:
    """Print values as JSON."""
    print(json.dumps(value, indent=2))


def print_error(command: str, error: ManypathError) -> None:
    """Print what went wrong, and what became of each path."""
    print(f"manypath: {command} failed: {error}", file=sys.stderr)
    for path in error.paths:
        outcome = path.state if path.error is None else f"{path.state}: {path.error}"
        print(f"  {path.portal} {path.iqn} LUN {path.lun}: {outcome}", file=sys.stderr)
    if error.detachment is not None:
        print(f"  {_removed(error.detachment)}", file=sys.stderr)
        _print_errors(error.detachment.errors[1:])


def show_attachment(attachment: Attachment) -> None:
    """Print the device, its paths and the time they took."""
    print(f"{attachment.path}  {_size(attachment.size_bytes)}  wwid {attachment.wwid}")
    print(f"{_active(attachment.paths)}, {_state_of_map(attachment)}")
    _print_paths(attachment.paths)
    _print_timings(attachment.timings)
    _print_path_errors(attachment.paths)
    _print_warnings(attachment.warnings)


def _active(paths: Sequence[Path]) -> str:
    return f"{sum(path.state == 'active' for path in paths)} of {len(paths)} paths active"


def _print_paths(paths: Sequence[Path]) -> None:
    print()
    _print_table(
        ("portal", "iqn", ">lun", "device", "hctl", ">session", "state", ">ms"),
        [
            (
                path.portal,
                path.iqn,
                path.lun,
                path.device or "-",
                path.hctl or "-",
                "-" if path.sid is None else path.sid,
                path.state,
                "-" if path.times.identity_end is None else _ms(path.times.identity_end),
            )
            for path in paths
        ],
    )
    print()


def _print_path_errors(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.error is not None:
            print(f"{path.portal}: {path.error}", file=sys.stderr)


def _state_of_map(attachment: Attachment) -> str:
    if not attachment.name:
        return "no map"
    origin = "found" if attachment.map_existed else "made"
    daemon = "running" if attachment.multipathd_running else "not running"
    return f"map {origin}, multipathd {daemon}"


def show_detachment(detachment: Detachment) -> None:
    """Print what is gone."""
    print(_removed(detachment))
    print()
    _print_timings(detachment.timings)
    _print_errors(detachment.errors)
    _print_warnings(detachment.warnings)


def _removed(detachment: Detachment) -> str:
    maps = "the map" if detachment.map_removed else "no map"
    return (
        f"removed {maps}, disks: {detachment.devices_removed}, "
        f"sessions: {detachment.sessions_removed}; "
        f"sessions kept for other volumes: {detachment.sessions_kept}; "
        f"flush: {detachment.flush}"
    )


def _print_errors(errors: Sequence[ManypathError]) -> None:
    for error in errors:
        print(f"  {error}", file=sys.stderr)


def show_extension(extension: Extension) -> None:
    """Print the device, its size before and now, and its paths."""
    sizes = f"{_size(extension.old_size_bytes)} before, {_size(extension.size_bytes)} now"
    print(f"{extension.path}  {sizes}  wwid {extension.wwid}")
    print(_active(extension.paths))
    _print_paths(extension.paths)
    _print_timings(extension.timings)
    _print_warnings(extension.warnings)


def show_plan(plan: Plan) -> None:
    """Print what connect would do, in its order."""
    if plan.discovery is not None:
        _print_discovery(plan.discovery, plan.multipath, plan.chap, plan.discovery_chap)
    else:
        doing = "log in to each" if plan.multipath else "use the first that serves the volume"
        print(f"{doing}{_as_user(plan.chap)}")
        print()
        _print_table(
            ("portal", "iqn", ">lun"),
            [(target.portal, target.iqn, target.lun) for target in plan.targets],
        )
    _print_warnings(plan.warnings)


def _print_discovery(
    discovery: Discovery,
    multipath: bool,
    chap: Credentials | None,
    discovery_chap: Credentials | None,
) -> None:
    for index, portal in enumerate(discovery.portals):
        lead = "if nobody answers, " if index else ""
        print(f"{lead}discover through {portal}{_as_user(discovery_chap)}")
    # connect() refuses to choose among several.
    name = "the one target found" if discovery.iqn is None else discovery.iqn
    doing = f"log in to {name} on each of" if multipath else f"use {name} on the first of"
    print(f"{doing} its portals, LUN {discovery.lun}{_as_user(chap)}")


def _as_user(chap: Credentials | None) -> str:
    if chap is None:
        return ""
    kind = "CHAP" if chap.username_in is None else "mutual CHAP"
    plain = chap.username.isascii() and chap.username.isprintable()
    return f", {kind} as {chap.username if plain else shorten(chap.username)}"


def plan_as_dict(plan: Plan) -> dict[str, Any]:
    """Return what :func:`show_plan` shows: the plan, and for whom it logs in."""
    return {
        **plan.as_dict(),
        "chap_username": plan.chap and plan.chap.username,
        "discovery_chap_username": plan.discovery_chap and plan.discovery_chap.username,
    }


def show_discovered(discovered: Discovered) -> None:
    """Print the targets found."""
    _print_table(
        ("iqn", "portal", ">tag"),
        [
            (target.iqn, target.portal, "-" if target.tag is None else target.tag)
            for target in discovered.targets
        ],
        empty=f"no targets at {discovered.portal}",
    )


def show_inventory(inventory: Inventory) -> None:
    """Print sessions, disks and maps."""
    _print_table(
        (">session", "portal", "iqn", "state"),
        [(s.sid, s.portal or "-", s.iqn, s.state) for s in inventory.sessions],
        empty="no iSCSI sessions",
    )
    print()
    _print_table(
        ("device", "hctl", ">session", ">lun", ">size", "state", "map", "path"),
        [
            (
                disk.device,
                disk.hctl,
                disk.sid,
                disk.lun,
                _size(disk.size_bytes),
                disk.state,
                disk.map or "-",
                disk.path_state or "-",
            )
            for disk in inventory.disks
        ],
        empty="no iSCSI disks",
    )
    print()
    _print_table(
        ("map", "name", "wwid", ">size", ">open", ">paths", ">active"),
        [
            (
                m.device,
                m.name,
                m.wwid,
                _size(m.size_bytes),
                m.open_count,
                m.path_count,
                m.active_path_count,
            )
            for m in inventory.maps
        ],
        empty="no multipath maps"
        if inventory.maps_known
        else "multipath maps not known: not root, or no device-mapper in the kernel",
    )


def _print_timings(timings: Timings | DetachTimings | ExtendTimings) -> None:
    phases = timings.as_dict()
    columns = tuple(f">{phase}" for phase in phases)
    _print_table(("ms in", *columns), [("", *(_ms(seconds) for seconds in phases.values()))])


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "") -> None:
    """Print rows under their headings; a heading that begins with > makes a column of numbers."""
    if not rows:
        print(empty)
        return
    lines = [[column.removeprefix(">").upper() for column in columns]]
    lines += [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        cells = (
            cell.rjust(width) if column.startswith(">") else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        print("  ".join(cells).rstrip())


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _size(size_bytes: int) -> str:
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
    step = min(max(size_bytes.bit_length() - 1, 0) // 10, len(units) - 1)
    size = size_bytes / 1024**step
    return f"{size:.0f} {units[step]}" if size.is_integer() else f"{size:.1f} {units[step]}"
