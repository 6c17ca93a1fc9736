# SPDX-License-Identifier: Apache-2.0
"""Connection properties: what becomes of each shape, and what is refused."""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any

import pytest

from manypath import Portal, Target, properties
from manypath.errors import InvalidRequestError, UnsupportedRequestError

PORTALS = [f"192.0.2.{i}:3260" for i in range(1, 5)]
IQNS = [f"iqn.2010-10.org.example:tgt{i}" for i in range(1, 5)]
LUNS = [4, 5, 6, 7]
TRIPLES = list(zip(PORTALS, IQNS, LUNS, strict=True))
SINGLE = {"target_portal": PORTALS[0], "target_iqn": IQNS[0], "target_lun": 1}
PLURAL = {"target_portals": PORTALS, "target_iqns": IQNS, "target_luns": LUNS}


def triples(request: properties.Request) -> list[tuple[str, str, int]]:
    return [(str(target.portal), target.iqn, target.lun) for target in request.targets]


def volume(**changes: Any) -> dict[str, Any]:
    """Plural properties with other values; None removes a key."""
    merged = {**PLURAL, **changes}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SINGLE, [(PORTALS[0], IQNS[0], 1)]),
        (PLURAL, TRIPLES),
        ({**PLURAL, **SINGLE}, TRIPLES),
        ({**PLURAL, "target_portal": "broken", "target_lun": -1}, None),
        (volume(target_luns=None, target_lun=9), [(p, i, 9) for p, i, _ in TRIPLES]),
        (volume(target_luns=[], target_lun=9), [(p, i, 9) for p, i, _ in TRIPLES]),
        (volume(target_luns=[3]), [(p, i, 3) for p, i, _ in TRIPLES]),
        (volume(target_iqns=IQNS[:1]), [(p, IQNS[0], n) for p, _, n in TRIPLES]),
        (volume(target_luns=["4", "005", 6, "7"]), None),
        (volume(target_portals=tuple(PORTALS)), None),
        ({**SINGLE, "target_lun": "0"}, [(PORTALS[0], IQNS[0], 0)]),
        ({**SINGLE, "target_lun": 2**63 - 1}, [(PORTALS[0], IQNS[0], 2**63 - 1)]),
        ({**SINGLE, "target_portals": None, "target_iqns": None}, [(PORTALS[0], IQNS[0], 1)]),
        ({**SINGLE, "target_portal": "192.0.2.1"}, [(PORTALS[0], IQNS[0], 1)]),
        ({"driver_volume_type": "iscsi", "data": SINGLE}, [(PORTALS[0], IQNS[0], 1)]),
        ({"data": PLURAL}, None),
        # Other keys of Cinder mean nothing here.
        ({**SINGLE, "discard": True, "qos_specs": None, "auth_method": None, "volume_id": "x"},
         [(PORTALS[0], IQNS[0], 1)]),
        (MappingProxyType(SINGLE), [(PORTALS[0], IQNS[0], 1)]),
        ({**SINGLE, "target_iqn": "eui.02004567A425678D"},
         [(PORTALS[0], "eui.02004567A425678D", 1)]),
        ({**SINGLE, "target_iqn": "naa.52004567BA64678D"},
         [(PORTALS[0], "naa.52004567BA64678D", 1)]),
    ],
)  # fmt: skip
def test_shapes(given: Any, expected: list[tuple[str, str, int]] | None) -> None:
    request = properties.parse(given)
    assert triples(request) == (expected or TRIPLES)
    assert request.warnings == ()


@pytest.mark.parametrize(
    ("mode", "lun", "expected"),
    [
        (None, 300, 300),
        ("SAM", 300, 300),
        ("transparent", 300, 300),
        ("SAM2", 255, 255),
        ("SAM2", 256, 256 + 16384),
        ("SAM3-flat", 1, 1 + 16384),
        ("SAM3-flat", "16383", 16383 + 16384),
    ],
)
def test_addressing_mode(mode: str | None, lun: object, expected: int) -> None:
    request = properties.parse({**SINGLE, "target_lun": lun, "addressing_mode": mode})
    assert request.targets[0].lun == expected


def test_unequal_lengths_use_the_common_part_and_say_so() -> None:
    request = properties.parse(volume(target_iqns=IQNS[:3]))
    assert triples(request) == TRIPLES[:3]
    (warning,) = request.warnings
    assert "4, 3 and 4 entries" in warning
    assert "only the first 3" in warning


def test_one_portal_does_not_serve_all_names() -> None:
    request = properties.parse(volume(target_portals=PORTALS[:1]))
    assert triples(request) == [(PORTALS[0], IQNS[0], LUNS[0])]
    assert request.warnings


def test_duplicates_collapse_by_value() -> None:
    request = properties.parse(
        {
            "target_portals": [
                "[2001:db8::1]:3260",
                "2001:DB8:0::1",
                "192.0.2.1",
                "192.0.2.1:3260,1",
            ],
            "target_iqns": IQNS[:1],
            "target_lun": "1",
        }
    )
    assert request.targets == (
        Target(Portal.parse("[2001:db8::1]:3260"), IQNS[0], 1),
        Target(Portal.parse("192.0.2.1:3260"), IQNS[0], 1),
    )
    assert request.warnings == ()


def test_the_dict_of_the_caller_is_not_changed() -> None:
    given = {"driver_volume_type": "iscsi", "data": {**PLURAL, **SINGLE}}
    before = copy.deepcopy(given)
    properties.parse(given)
    assert given == before


def test_the_longest_name_is_taken() -> None:
    name = "iqn." + "a" * 219
    assert properties.parse({**SINGLE, "target_iqn": name}).targets[0].iqn == name


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, ["target_portal is missing", "target_portals"]),
        ([SINGLE], ["list, not a dict", "connection_info"]),
        (None, ["NoneType, not a dict"]),
        ({"data": None}, ["data is NoneType"]),
        ({"data": [SINGLE]}, ["data is list"]),
        (volume(target_portals=None), ["target_portals is missing"]),
        (volume(target_portals=[]), ["target_portals is empty"]),
        (volume(target_iqns=[]), ["target_iqns is empty"]),
        ({**SINGLE, "target_portals": [], "target_iqns": []}, ["target_portals is empty"]),
        (volume(target_portals="192.0.2.1:3260"), ["target_portals is str, not a list"]),
        (volume(target_iqns=b"iqn"), ["target_iqns is bytes, not a list"]),
        (volume(target_luns=5), ["target_luns is int, not a list"]),
        (volume(target_luns={4, 5}), ["target_luns is set, not a list"]),
        (volume(target_luns=None), ["target_lun is missing", "target_luns"]),
        ({**SINGLE, "target_lun": None}, ["target_lun is missing"]),
        ({"target_iqn": IQNS[0], "target_lun": 1}, ["target_portal is missing"]),
        # Ports
        ({**SINGLE, "target_portal": "192.0.2.1:0"}, ["target_portal: ", "'0'", "1 and 65535"]),
        (volume(target_portals=[*PORTALS[:3], "192.0.2.4:70000"]),
         ["target_portals[3]: ", "'70000'", "1 and 65535"]),
        (volume(target_portals=[PORTALS[0], None, *PORTALS[2:]]),
         ["target_portals[1]", "NoneType"]),
        (volume(target_portals=["192.0.2.1\n:3260", *PORTALS[1:]]), ["target_portals[0]", "\\n"]),
        # Names
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a\nb"}, ["target_iqn", "a\\nb", "iqn."]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a\n"}, ["target_iqn", "\\n"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a b"}, ["blanks"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a\0"}, ["\\x00"]),
        (volume(target_iqns=[IQNS[0], "iqn." + "a" * 296, *IQNS[2:]]),
         ["target_iqns[1]", "300 bytes", "at most 223"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.ex\u00e4mple:1"}, ["\\xe4", "ASCII"]),
        ({**SINGLE, "target_iqn": "iqn." + "\u00e4" * 110}, ["224 bytes"]),
        ({**SINGLE, "target_iqn": "iqn.\udcff"}, ["\\udcff"]),
        ({**SINGLE, "target_iqn": b"iqn.2010-10.org.example:1"}, ["bytes, not a string"]),
        ({**SINGLE, "target_iqn": 5}, ["int, not a string"]),
        ({**SINGLE, "target_iqn": ""}, ["not an iSCSI name"]),
        ({**SINGLE, "target_iqn": "iqn."}, ["not an iSCSI name"]),
        ({**SINGLE, "target_iqn": "storage:1"}, ["not an iSCSI name", "eui."]),
        # LUNs
        ({**SINGLE, "target_lun": -1}, ["target_lun: -1", "0 and 2^63 - 1"]),
        ({**SINGLE, "target_lun": 2**63}, ["target_lun: 9223372036854775808", "2^63"]),
        (volume(target_luns=[4, 5, 2**64, 7]), ["target_luns[2]", "2^63"]),
        ({**SINGLE, "target_lun": 10**5000}, ["target_lun: <int of many digits>"]),
        ({**SINGLE, "target_lun": "9" * 5000}, ["target_lun: '999", "not an integer"]),
        ({**SINGLE, "target_lun": "0x1"}, ["'0x1' is not an integer"]),
        ({**SINGLE, "target_lun": "-1"}, ["'-1' is not an integer"]),
        ({**SINGLE, "target_lun": " 1"}, ["is not an integer"]),
        ({**SINGLE, "target_lun": "\u0663"}, ["is not an integer"]),
        ({**SINGLE, "target_lun": 1.0}, ["1.0 is not an integer"]),
        ({**SINGLE, "target_lun": True}, ["True is not an integer"]),
        ({**SINGLE, "target_lun": [1]}, ["[1] is not an integer"]),
        (volume(target_luns=[4, None, 6, 7]), ["target_luns[1]: None"]),
        ({**SINGLE, "addressing_mode": "SAM4"}, ["addressing_mode 'SAM4'", "SAM3-flat"]),
        ({**SINGLE, "addressing_mode": "SAM3-flat", "target_lun": 16384}, ["16383"]),
        ({**SINGLE, "addressing_mode": "SAM3-flat", "target_lun": -1}, ["target_lun: -1"]),
    ],
)  # fmt: skip
def test_refused(given: Any, parts: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        properties.parse(given)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 300
    assert caught.value.phase == "request"
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({**SINGLE, "auth_method": "CHAP", "auth_password": "xyzzy"}, "CHAP"),
        ({**PLURAL, "auth_username": "user", "auth_password": "xyzzy"}, "CHAP"),
        ({**SINGLE, "auth_password": "xyzzy"}, "CHAP"),
        ({**SINGLE, "target_portal": "storage.example:3260"}, "host name"),
        ({"target_portal": PORTALS[0], "target_lun": 1}, "discovery"),
        ({"target_portals": PORTALS, "target_lun": 1}, "discovery"),
        ({**SINGLE, "target_portals": PORTALS}, "discovery"),
        ({"driver_volume_type": "iser", "data": SINGLE}, "iSCSI volumes only"),
        ({"driver_volume_type": "rbd", "data": {}}, "iSCSI volumes only"),
    ],
)
def test_what_this_version_cannot_do_is_refused_in_words(given: Any, part: str) -> None:
    with pytest.raises(UnsupportedRequestError, match=part) as caught:
        properties.parse(given)
    assert "xyzzy" not in str(caught.value)
