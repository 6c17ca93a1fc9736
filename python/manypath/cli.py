# SPDX-License-Identifier: Apache-2.0
"""The command ``manypath``: exit status 0, 1 if the operation failed, 2 for bad input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from manypath import _output, connector, operations, properties
from manypath.errors import InvalidRequestError, ManypathError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from manypath._types import (
        Attachment,
        Credentials,
        Detachment,
        Discovered,
        Extension,
        Inventory,
        Plan,
    )

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
            _output.print_json({"error": error.as_dict()})
        else:
            _output.print_error(options.command, error)
        return EXIT_USAGE if isinstance(error, InvalidRequestError) else EXIT_FAILED
    except KeyboardInterrupt:
        print(f"manypath: {options.command} was interrupted and given up", file=sys.stderr)
        return EXIT_INTERRUPTED
    if options.json:
        _output.print_json(options.as_dict(result))
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
    parser.set_defaults(as_dict=lambda result: result.as_dict())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    connect = commands.add_parser("connect", help="attach a volume")
    connect.set_defaults(run=_connect, show=_output.show_attachment)
    connect.add_argument(
        "--min-paths",
        type=int,
        default=1,
        metavar="N",
        help="usable paths wanted, else fail (default: %(default)s)",
    )
    connect.add_argument(
        "--wwid", metavar="W", help="who the volume must be: 3600..., naa.600... or eui.00..."
    )
    connect.add_argument(
        "--serial", metavar="S", help="the serial number it must have, as in VPD page 0x80"
    )

    disconnect = commands.add_parser("disconnect", help="detach a volume")
    disconnect.set_defaults(run=_disconnect, show=_output.show_detachment)
    disconnect.add_argument(
        "--force",
        action="store_true",
        help="go on whatever fails, and give up data that cannot be written back",
    )
    disconnect.add_argument(
        "--ignore-errors",
        action="store_true",
        help="with --force: show what failed, and succeed",
    )

    extend = commands.add_parser("extend", help="take the new size of a volume that was extended")
    extend.set_defaults(run=_extend, show=_output.show_extension)
    extend.add_argument(
        "--size",
        type=int,
        metavar="BYTES",
        help="wait until the storage tells at least this size (default: take what it tells)",
    )

    plan = commands.add_parser("plan", help="show what connect would do, and touch nothing")
    plan.set_defaults(run=_plan, show=_output.show_plan, as_dict=_output.plan_as_dict)

    discover = commands.add_parser("discover", help="show the targets that a portal offers")
    discover.set_defaults(run=_discover, show=_output.show_discovered)
    discover.add_argument("portal", metavar="PORTAL", help="address, address:port or name:port")
    discover.add_argument("--initiator", metavar="NAME", help="our iSCSI name, if not this host's")
    discover.add_argument(
        "--chap-file",
        metavar="FILE",
        help="JSON with discovery_auth_method, discovery_auth_username, discovery_auth_password; "
        "- for stdin",
    )

    listing = commands.add_parser("list", help="show sessions, paths and maps of this host")
    listing.set_defaults(run=_list, show=_output.show_inventory)

    host = commands.add_parser("connector", help="print the connector for Cinder, as JSON")
    host.set_defaults(run=_connector, json=True, as_dict=dict)
    host.add_argument("--ip", metavar="ADDRESS", help="of this host, if not the default route's")
    host.add_argument("--host", metavar="NAME", help="of this host, if not gethostname()'s")

    for command in (connect, disconnect, extend, plan):
        command.add_argument("file", metavar="FILE", help="connection properties, - for stdin")
    for command in (connect, plan):
        command.add_argument(
            "--strict", action="store_true", help="fail on what would be a warning about FILE"
        )
    for command in (connect, plan, host):
        command.add_argument("--single", action="store_true", help="one path, without multipath")
    for command in (connect, disconnect, extend, discover):
        command.add_argument(
            "--timeout",
            type=float,
            default=operations.DEFAULT_TIMEOUT,
            metavar="SECONDS",
            help="for the whole operation (default: %(default)g)",
        )
    for command in (connect, disconnect, extend, plan, discover, listing):
        command.add_argument("--json", action="store_true", help="print JSON, also for errors")
    return parser


def _connect(options: argparse.Namespace) -> Attachment:
    return operations.connect(
        _load(options.file),
        multipath=not options.single,
        strict=options.strict,
        timeout=options.timeout,
        min_paths=options.min_paths,
        wwid=options.wwid,
        serial=options.serial,
    )


def _disconnect(options: argparse.Namespace) -> Detachment:
    return operations.disconnect(
        _load(options.file),
        timeout=options.timeout,
        force=options.force,
        ignore_errors=options.ignore_errors,
    )


def _extend(options: argparse.Namespace) -> Extension:
    return operations.extend(_load(options.file), size=options.size, timeout=options.timeout)


def _plan(options: argparse.Namespace) -> Plan:
    return properties.plan(_load(options.file), not options.single, strict=options.strict)


def _discover(options: argparse.Namespace) -> Discovered:
    chap = None if options.chap_file is None else _load_chap(options.chap_file)
    return operations.discover(
        options.portal, timeout=options.timeout, initiator=options.initiator, chap=chap
    )


def _list(_: argparse.Namespace) -> Inventory:
    return operations.inventory()


def _connector(options: argparse.Namespace) -> dict[str, Any]:
    return connector.connector_properties(
        multipath=not options.single, ip=options.ip, host=options.host
    )


def _load_chap(file: str) -> Credentials:
    chap = properties.discovery_credentials(_load(file))
    if chap is None:
        raise InvalidRequestError(
            f"{file} does not ask for CHAP; set discovery_auth_method to 'CHAP' there, with "
            "discovery_auth_username and discovery_auth_password"
        )
    return chap


def _load(file: str) -> Any:
    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else FilePath(file).read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as error:
        raise InvalidRequestError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        # Its own words show bytes of the file, which may be those of a password.
        raise InvalidRequestError(
            f"{name} is not JSON: not UTF-8 from byte {error.start} on"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name} is not JSON: {error}") from None
