# SPDX-License-Identifier: Apache-2.0
"""Cinder's connection properties -> the targets of a volume. Pure: no system call, no guessing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from manypath._types import Target
from manypath.address import Portal, shorten
from manypath.errors import InvalidRequestError, UnsupportedRequestError

LUN_LIMIT = 2**63
IQN_LIMIT = 223  # bytes, RFC 7143 section 4.2.7.1

_IQN = re.compile(r"(?:iqn|eui|naa)\.[!-~]+\Z", re.ASCII | re.IGNORECASE)

#: SAM-2's flat space addressing: 14 bits below an address method of 01b.
_FLAT_SPACE = 0x4000
_ADDRESSING_MODES = (None, "SAM", "transparent", "SAM2", "SAM3-flat")


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """The targets of a volume, in the order given, and what was odd about the properties."""

    targets: tuple[Target, ...]
    warnings: tuple[str, ...]


def parse(connection_properties: Mapping[str, Any]) -> Request:
    """Read connection properties: the ``data`` of a connection_info, or the whole of it.

    The plural keys win over the single ones. ``target_luns`` and ``target_iqns`` of length 1 serve
    all portals, ``target_lun`` serves all where ``target_luns`` is missing. The dict stays as it
    is.
    """
    data = _data(connection_properties)
    plural = _given(data, "target_portals") or _given(data, "target_iqns")
    _refuse_unsupported(data, "s" if plural else "")
    if plural:
        portals = _items(data, "target_portals")
        iqns = _items(data, "target_iqns")
        luns = _items(data, "target_luns") if data.get("target_luns") else [_lun_item(data)]
    else:
        portals = [_item(data, "target_portal")]
        iqns = [_item(data, "target_iqn")]
        luns = [_lun_item(data)]
    count, warnings = _common_length(len(portals), len(iqns), len(luns))
    targets = [
        Target(
            _portal(*portals[index]),
            _iqn(*iqns[index if len(iqns) > 1 else 0]),
            _lun(*luns[index if len(luns) > 1 else 0], data.get("addressing_mode")),
        )
        for index in range(count)
    ]
    return Request(tuple(dict.fromkeys(targets)), warnings)


#: Where a value was found, and the value.
_Item = tuple[str, Any]


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, phase="request")


def _data(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(properties, Mapping):
        raise _invalid(
            f"connection properties are {type(properties).__name__}, not a dict; "
            "give the 'data' of Cinder's connection_info"
        )
    volume_type = properties.get("driver_volume_type", "iscsi")
    if volume_type != "iscsi":
        raise UnsupportedRequestError(
            f"driver_volume_type {shorten(volume_type)} is not 'iscsi'; "
            "manypath attaches iSCSI volumes only",
            phase="request",
        )
    data = properties.get("data", properties)
    if not isinstance(data, Mapping):
        raise _invalid(
            f"data is {type(data).__name__}, not a dict; give Cinder's connection_info as it is"
        )
    return data


def _given(data: Mapping[str, Any], key: str) -> bool:
    return data.get(key) is not None


def _refuse_unsupported(data: Mapping[str, Any], plural: str) -> None:
    # Values of auth_ keys are secrets: none of them may get into a message.
    if data.get("auth_method") or data.get("auth_username") or data.get("auth_password"):
        raise UnsupportedRequestError(
            "auth_method asks for CHAP, which this version cannot do yet; "
            "export the volume without authentication",
            phase="request",
        )
    portal_key, iqn_key = f"target_portal{plural}", f"target_iqn{plural}"
    if _given(data, portal_key) and not _given(data, iqn_key):
        raise UnsupportedRequestError(
            f"{portal_key} without {iqn_key} asks for discovery, which this version cannot do yet; "
            f"add {iqn_key}",
            phase="request",
        )
    mode = data.get("addressing_mode")
    if mode not in _ADDRESSING_MODES:
        known = ", ".join(str(name) for name in _ADDRESSING_MODES[1:])
        raise _invalid(f"addressing_mode {shorten(mode)} is not known; use one of {known}")


def _item(data: Mapping[str, Any], key: str) -> _Item:
    value = data.get(key)
    if value is None:
        raise _invalid(f"{key} is missing; add it (or {key}s) to the connection properties")
    return key, value


def _items(data: Mapping[str, Any], key: str) -> list[_Item]:
    values = data.get(key)
    if values is None:
        raise _invalid(f"{key} is missing; add it to the connection properties")
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise _invalid(f"{key} is {type(values).__name__}, not a list; give one entry per path")
    if not values:
        raise _invalid(f"{key} is empty; give one entry per path")
    return [(f"{key}[{index}]", value) for index, value in enumerate(values)]


def _lun_item(data: Mapping[str, Any]) -> _Item:
    if not _given(data, "target_lun"):
        raise _invalid(
            "target_lun is missing; add it (or target_luns): "
            "taking LUN 0 instead could attach another volume"
        )
    return "target_lun", data["target_lun"]


def _common_length(portals: int, iqns: int, luns: int) -> tuple[int, tuple[str, ...]]:
    lengths = [portals] + [length for length in (iqns, luns) if length > 1]
    count = min(lengths)
    if count == max(lengths):
        return count, ()
    warning = (
        f"target_portals, target_iqns and target_luns have {portals}, {iqns} and {luns} entries; "
        f"only the first {count} are used"
    )
    return count, (warning,)


def _portal(where: str, value: Any) -> Portal:
    try:
        return Portal.parse(value)
    except InvalidRequestError as error:
        raise type(error)(f"{where}: {error}", phase="request") from None


def _iqn(where: str, value: Any) -> str:
    remedy = "give the target's name as the storage reports it, such as iqn.2010-10.org.example:1"
    if not isinstance(value, str):
        raise _invalid(
            f"{where}: {shorten(value)} is {type(value).__name__}, not a string; {remedy}"
        )
    length = len(value.encode("utf-8", "surrogatepass"))
    if length > IQN_LIMIT:
        raise _invalid(
            f"{where}: {shorten(value)} has {length} bytes, an iSCSI name has at most {IQN_LIMIT}; "
            f"{remedy}"
        )
    if not _IQN.match(value):
        raise _invalid(
            f"{where}: {shorten(value)} is not an iSCSI name: that begins with iqn., eui. or naa. "
            f"and has only printable ASCII without blanks; {remedy}"
        )
    return value


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
