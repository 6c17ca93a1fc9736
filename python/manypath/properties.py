# SPDX-License-Identifier: Apache-2.0
"""Cinder's connection properties -> what to do with them. Pure: no system call, no guessing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from manypath import chap
from manypath._types import Credentials, Discovery, Plan, Target
from manypath.address import NamedPortal, Portal, parse_portal, shorten
from manypath.errors import InvalidRequestError, UnsupportedRequestError

LUN_LIMIT = 2**63
IQN_LIMIT = 223  # bytes, RFC 7143 section 4.2.7.1
LIST_LIMIT = 1024  # targets in one request, MANYPATH_TARGETS_MAX

# Names are compared byte by byte on the wire and in sysfs, so only what stringprep (RFC 3722)
# leaves as it is in ASCII is taken, and the case stays. The same rule as in native/src/request.c.
_IQN = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:_-]+\Z", re.ASCII)
_PREFIX = re.compile(r"(?:iqn|eui|naa)\.", re.ASCII | re.IGNORECASE)

#: SAM-2's flat space addressing: 14 bits below an address method of 01b.
_FLAT_SPACE = 0x4000
_ADDRESSING_MODES = (None, "SAM", "transparent", "SAM2", "SAM3-flat")


def plan(
    connection_properties: Mapping[str, Any], multipath: bool = True, *, strict: bool = False
) -> Plan:
    """Return what :func:`connect` would do, without touching the host or the network.

    Takes the ``data`` of a connection_info or the whole of it, nested or flat, and leaves it as it
    is. The plural keys win over the single ones; ``target_luns`` and ``target_iqns`` of length 1
    serve all portals, ``target_lun`` serves all where ``target_luns`` is missing. Portals without
    names have to be discovered, and so has a single portal if ``multipath`` is wanted, since there
    may be more of them. Without ``multipath`` the targets are to be tried in order.

    With ``strict``, what would be a warning is an :class:`~manypath.errors.InvalidRequestError`.
    """
    _check_flag("multipath", multipath)
    _check_flag("strict", strict)
    notes = _Notes(strict)
    data = _data(connection_properties)
    targets, discovery = _places(data, multipath, notes)
    session_chap = chap.read(data, "auth_", notes.add)
    discovery_chap = None
    if discovery is not None:
        discovery_chap = chap.read(data, "discovery_auth_", notes.add)
    return Plan(multipath, targets, discovery, tuple(notes.warnings), session_chap, discovery_chap)


def plan_without_chap(connection_properties: Mapping[str, Any], multipath: bool = True) -> Plan:
    """As :func:`plan`, but credentials are not looked at.

    A logout needs none, so a volume can be detached with properties that have lost theirs.
    """
    _check_flag("multipath", multipath)
    notes = _Notes(strict=False)
    targets, discovery = _places(_data(connection_properties), multipath, notes)
    return Plan(multipath, targets, discovery, tuple(notes.warnings))


def discovery_credentials(properties: Mapping[str, Any]) -> Credentials | None:
    """Return the credentials of the ``discovery_auth_`` keys; None: there are none."""
    return chap.read(_data(properties), "discovery_auth_", _Notes(strict=True).add)


#: Where a value was found, and the value.
_Item = tuple[str, Any]

_Places = tuple[tuple[Target, ...], Discovery | None]


class _Notes:
    """Collects warnings, or refuses what they are about."""

    __slots__ = ("strict", "warnings")

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.warnings: list[str] = []

    def add(self, fault: str, consequence: str, remedy: str) -> None:
        if self.strict:
            raise _invalid(f"{fault}; {remedy}")
        self.warnings.append(f"{fault}; {consequence}")


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, phase="request")


def _check_flag(name: str, value: bool) -> None:
    if not isinstance(value, bool):
        raise _invalid(f"{name} {shorten(value)} is not a bool; give True or False")


def _places(data: Mapping[str, Any], multipath: bool, notes: _Notes) -> _Places:
    _check_addressing_mode(data)
    portals = _items(data, "target_portals")
    iqns = _items(data, "target_iqns")
    if portals and iqns:
        return _targets(data, portals, iqns, notes), None
    if portals:
        iqn = _given_iqn(data)
        return (), _discovery(portals, iqn, _common_lun(data))
    return _single(data, multipath, notes)


def _data(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Unwrap what an API may have put around the keys."""
    data = _mapping(properties, "connection properties")
    for wrapper in ("connection_info", "data"):
        if wrapper in data:
            data = _mapping(data[wrapper], wrapper)
    return data


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        verb = "are" if name.endswith("s") else "is"
        raise _invalid(
            f"{name} {verb} {type(value).__name__}, not a dict; "
            "give Cinder's connection_info, or its 'data'"
        )
    volume_type = value.get("driver_volume_type", "iscsi")
    if volume_type != "iscsi":
        raise UnsupportedRequestError(
            f"driver_volume_type {shorten(volume_type)} is not 'iscsi'; "
            "manypath attaches iSCSI volumes only",
            phase="request",
        )
    return value


def _is_given(data: Mapping[str, Any], key: str) -> bool:
    return data.get(key) is not None


def _check_addressing_mode(data: Mapping[str, Any]) -> None:
    mode = data.get("addressing_mode")
    if mode not in _ADDRESSING_MODES:
        known = ", ".join(str(name) for name in _ADDRESSING_MODES[1:])
        raise _invalid(f"addressing_mode {shorten(mode)} is not known; use one of {known}")


def _targets(
    data: Mapping[str, Any], portals: list[_Item], iqns: list[_Item], notes: _Notes
) -> tuple[Target, ...]:
    luns = _items(data, "target_luns") or [_lun_item(data)]
    count = _common_length(len(portals), len(iqns), len(luns), notes)
    targets = [
        Target(
            _portal(*portals[index]),
            iscsi_name(*iqns[index if len(iqns) > 1 else 0]),
            _lun(*luns[index if len(luns) > 1 else 0], data.get("addressing_mode")),
        )
        for index in range(count)
    ]
    return tuple(dict.fromkeys(targets))


def _discovery(portals: list[_Item], iqn: str | None, lun: int) -> Discovery:
    return Discovery(tuple(dict.fromkeys(_portal(*portal) for portal in portals)), iqn, lun)


def _single(data: Mapping[str, Any], multipath: bool, notes: _Notes) -> _Places:
    _note_lists_without_portals(data, notes)
    if not _is_given(data, "target_portal"):
        raise _invalid(
            "target_portal is missing; add it (or target_portals) to the connection properties"
        )
    portal = ("target_portal", data["target_portal"])
    lun = _lun(*_lun_item(data), data.get("addressing_mode"))
    iqn = _given_iqn(data)
    if multipath or iqn is None:
        return (), _discovery([portal], iqn, lun)
    return (Target(_portal(*portal), iqn, lun),), None


def _given_iqn(data: Mapping[str, Any]) -> str | None:
    return iscsi_name("target_iqn", data["target_iqn"]) if _is_given(data, "target_iqn") else None


def _note_lists_without_portals(data: Mapping[str, Any], notes: _Notes) -> None:
    lists = [key for key in ("target_iqns", "target_luns") if _items(data, key)]
    if "target_iqns" in lists and not _is_given(data, "target_iqn"):
        # To discover would be to forget the names, and perhaps to take another volume.
        raise _invalid("target_portals is missing or empty; give a portal for each of target_iqns")
    if lists:
        notes.add(
            f"{' and '.join(lists)} given, but target_portals is missing or empty",
            "target_portal, target_iqn and target_lun are used",
            "give a portal for each entry, or remove the lists",
        )


def _items(data: Mapping[str, Any], key: str) -> list[_Item]:
    values = data.get(key)
    if values is None:
        return []
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise _invalid(f"{key} is {type(values).__name__}, not a list; give one entry per path")
    if len(values) > LIST_LIMIT:
        raise _invalid(f"{key} has {len(values)} entries; give at most {LIST_LIMIT}")
    return [(f"{key}[{index}]", value) for index, value in enumerate(values)]


def _lun_item(data: Mapping[str, Any]) -> _Item:
    if not _is_given(data, "target_lun"):
        raise _invalid(
            "target_lun is missing; add it (or target_luns): "
            "taking LUN 0 instead could attach another volume"
        )
    return "target_lun", data["target_lun"]


def _common_lun(data: Mapping[str, Any]) -> int:
    """Return the one LUN of all portals: which of them discovery finds cannot be told before."""
    items = _items(data, "target_luns") or [_lun_item(data)]
    luns = {_lun(*item, data.get("addressing_mode")) for item in items}
    if len(luns) > 1:
        raise _invalid(
            f"target_luns has {len(luns)} different LUNs, and without target_iqns it is not known "
            "which target each belongs to; add target_iqns"
        )
    return luns.pop()


def _common_length(portals: int, iqns: int, luns: int, notes: _Notes) -> int:
    lengths = [portals] + [length for length in (iqns, luns) if length > 1]
    count = min(lengths)
    if count < max(lengths):
        notes.add(
            f"target_portals, target_iqns and target_luns have {portals}, {iqns} and {luns} "
            "entries",
            f"only the first {count} are used",
            "give one for each portal, or one name or LUN for all",
        )
    return count


def _portal(where: str, value: Any) -> Portal | NamedPortal:
    try:
        return parse_portal(value)
    except InvalidRequestError as error:
        raise type(error)(f"{where}: {error}", phase="request") from None


def iscsi_name(where: str, value: Any) -> str:
    """Return the iSCSI name, or raise an error that says where it was found."""
    remedy = "give it as the storage or host reports it, such as iqn.2010-10.org.example:1"
    shown = f"{where}: {shorten(value)}"
    if not isinstance(value, str):
        raise _invalid(f"{shown} is {type(value).__name__}, not a string; {remedy}")
    length = len(value.encode("utf-8", "surrogatepass"))
    if length > IQN_LIMIT:
        raise _invalid(f"{shown} has {length} bytes, an iSCSI name at most {IQN_LIMIT}; {remedy}")
    if _IQN.match(value):
        return value
    prefix = value[:4]
    if _PREFIX.match(prefix) and not prefix.islower():
        raise _invalid(
            f"{shown} begins with {prefix}, but iSCSI names are compared byte by byte; "
            f"begin with {prefix.lower()}"
        )
    raise _invalid(
        f"{shown} is not an iSCSI name: that begins with iqn., eui. or naa. and has only letters, "
        f"digits, '-', '.', ':' and '_'; {remedy}"
    )


def _lun(where: str, value: Any, addressing_mode: str | None) -> int:
    number = value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise _invalid(f"{where}: {shorten(value)} is not an integer; give the LUN as a number")
    if not 0 <= number < LUN_LIMIT:
        raise _invalid(
            f"{where}: {shorten(value)} is not between 0 and 2^63 - 1; "
            "give the LUN as the storage reports it"
        )
    if addressing_mode == "SAM3-flat" or (addressing_mode == "SAM2" and number > 255):
        if number >= _FLAT_SPACE:
            raise _invalid(
                f"{where}: {shorten(value)} is above {_FLAT_SPACE - 1}, the highest LUN that "
                f"addressing_mode {addressing_mode} can express; remove addressing_mode"
            )
        number += _FLAT_SPACE
    return number
