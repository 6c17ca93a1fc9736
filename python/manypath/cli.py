# SPDX-License-Identifier: Apache-2.0
"""The command ``manypath``: exit status 0, 1 if the operation failed, 2 for bad input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from manypath import operations
from manypath.errors import InvalidRequestError, ManypathError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from manypath._types import Attachment, Detachment, DetachTimings, Inventory, Timings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # as a shell reports a program that SIGINT ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        result = options.run(options)
    except ManypathError as error:
        if options.json:
            _print_json({"error": error.as_dict()})
        else:
            _print_error(options.command, error)
        return EXIT_USAGE if isinstance(error, InvalidRequestError) else EXIT_FAILED
    except KeyboardInterrupt:
        print(f"manypath: {options.command} was interrupted and given up", file=sys.stderr)
        return EXIT_INTERRUPTED
    if options.json:
        _print_json(result.as_dict())
    else:
        options.show(result)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="manypath",
        description="Attach iSCSI volumes as dm-multipath devices without starting a process.",
        epilog="FILE holds Cinder's connection properties, or a whole connection_info, as JSON; "
        "- reads them from standard input.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    connect = commands.add_parser("connect", help="attach a volume")
    connect.set_defaults(run=_connect, show=_show_attachment)
    connect.add_argument("file", metavar="FILE", help="connection properties, - for stdin")
    connect.add_argument(
        "--min-paths",
        type=int,
        default=1,
        metavar="N",
        help="usable paths wanted, else fail (default: %(default)s)",
    )

    disconnect = commands.add_parser("disconnect", help="detach a volume")
    disconnect.set_defaults(run=_disconnect, show=_show_detachment)
    disconnect.add_argument("file", metavar="FILE", help="connection properties, - for stdin")

    for command in (connect, disconnect):
        command.add_argument(
            "--timeout",
            type=float,
            default=operations.DEFAULT_TIMEOUT,
            metavar="SECONDS",
            help="for the whole operation (default: %(default)g)",
        )

    listing = commands.add_parser("list", help="show sessions, paths and maps of this host")
    listing.set_defaults(run=_list, show=_show_inventory)

    for command in (connect, disconnect, listing):
        command.add_argument("--json", action="store_true", help="print JSON, also for errors")
    return parser


def _connect(options: argparse.Namespace) -> Attachment:
    properties = _load(options.file)
    return operations.connect(properties, timeout=options.timeout, min_paths=options.min_paths)


def _disconnect(options: argparse.Namespace) -> Detachment:
    return operations.disconnect(_load(options.file), timeout=options.timeout)


def _list(_: argparse.Namespace) -> Inventory:
    return operations.inventory()


def _load(file: str) -> Any:
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else FilePath(file).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise InvalidRequestError(f"cannot read {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name} is not JSON: {error}") from error


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2))


def _print_error(command: str, error: ManypathError) -> None:
    print(f"manypath: {command} failed: {error}", file=sys.stderr)
    for path in error.paths:
        outcome = path.state if path.error is None else f"{path.state}: {path.error}"
        print(f"  {path.portal} {path.iqn} LUN {path.lun}: {outcome}", file=sys.stderr)


def _show_attachment(attachment: Attachment) -> None:
    active = sum(path.state == "active" for path in attachment.paths)
    print(f"{attachment.path}  {_size(attachment.size_bytes)}  wwid {attachment.wwid}")
    print(
        f"{active} of {len(attachment.paths)} paths active, "
        f"map {'found' if attachment.map_existed else 'made'}, "
        f"multipathd {'running' if attachment.multipathd_running else 'not running'}"
    )
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
            for path in attachment.paths
        ],
    )
    print()
    _print_timings(attachment.timings)
    for path in attachment.paths:
        if path.error is not None:
            print(f"{path.portal}: {path.error}", file=sys.stderr)
    _print_warnings(attachment.warnings)


def _show_detachment(detachment: Detachment) -> None:
    maps = "the map" if detachment.map_removed else "no map"
    print(
        f"removed {maps}, disks: {detachment.devices_removed}, "
        f"sessions: {detachment.sessions_removed}; "
        f"sessions kept for other volumes: {detachment.sessions_kept}"
    )
    print()
    _print_timings(detachment.timings)
    _print_warnings(detachment.warnings)


def _show_inventory(inventory: Inventory) -> None:
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


def _print_timings(timings: Timings | DetachTimings) -> None:
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
