# SPDX-License-Identifier: Apache-2.0
"""Connection properties: what becomes of each shape that Cinder's drivers send."""

from __future__ import annotations

import copy
from types import MappingProxyType
from typing import Any

import pytest

from manypath import Discovery, NamedPortal, Plan, Portal, Target, plan
from manypath.address import parse_portal
from manypath.errors import InvalidRequestError, UnsupportedRequestError

PORTALS = [f"192.0.2.{i}:3260" for i in range(1, 5)]
IQNS = [f"iqn.2010-10.org.example:tgt{i}" for i in range(1, 5)]
LUNS = [4, 5, 6, 7]
TRIPLES = list(zip(PORTALS, IQNS, LUNS, strict=True))
SINGLE = {"target_portal": PORTALS[0], "target_iqn": IQNS[0], "target_lun": 1}
PLURAL: dict[str, Any] = {"target_portals": PORTALS, "target_iqns": IQNS, "target_luns": LUNS}
SINGLE_TRIPLE = [(PORTALS[0], IQNS[0], 1)]

Places = list[tuple[str, str, int]]
Expected = Places | Discovery


def places(found: Plan) -> Expected:
    if found.discovery is not None:
        assert found.targets == ()
        return found.discovery
    return [(str(target.portal), target.iqn, target.lun) for target in found.targets]


def discovery(portals: str | list[str], iqn: str | None, lun: int) -> Discovery:
    texts = [portals] if isinstance(portals, str) else portals
    return Discovery(tuple(parse_portal(text) for text in texts), iqn, lun)


def volume(**changes: Any) -> dict[str, Any]:
    """Plural properties with other values; None removes a key."""
    merged = {**PLURAL, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def singles(portal: str, iqn: str, lun: object, **others: Any) -> dict[str, Any]:
    return {"target_portal": portal, "target_iqn": iqn, "target_lun": lun, **others}


def plurals(triples: list[tuple[str, str, Any]], **others: Any) -> dict[str, Any]:
    portals, iqns, luns = (list(column) for column in zip(*triples, strict=True))
    return {"target_portals": portals, "target_iqns": iqns, "target_luns": luns, **others}


CHAP = {"auth_method": "CHAP", "auth_username": "user", "auth_password": "twelve bytes"}
OPENSTACK = "iqn.2010-10.org.openstack:volume-6f0d"
HOST = "iqn.1993-08.org.debian:01:host"
TWO = [("10.0.0.5:3260", OPENSTACK, 0), ("10.0.1.5:3260", OPENSTACK, 0)]
PORTS = [("10.0.0.5:3260", "iqn.a:port1", 3), ("10.0.1.5:3260", "iqn.a:port2", 3)]
PEERS = [("10.0.0.5:3260", "iqn.a:array1", 3), ("10.9.0.5:3260", "iqn.b:array2", 250)]
V6_MIX = [("[fd00::12]:3260", OPENSTACK, 0), ("192.168.1.1:3260", OPENSTACK, 0)]
V6_BARE = [("fd00::12:3260", "iqn.a:1", 1), ("fd00:0:0:0:0:0:0:13:3260", "iqn.a:2", 1)]
V6_READ = [("[fd00::12]:3260", "iqn.a:1", 1), ("[fd00::13]:3260", "iqn.a:2", 1)]


# What each driver sends (os-brick.md section 6.2), and what is done with it.
# The last column is for multipath False.
@pytest.mark.parametrize(
    ("given", "expected", "alone"),
    [
        pytest.param(
            singles("10.0.0.5:3260", OPENSTACK, 0, target_discovered=False, volume_id="6f0d",
                    encrypted=False, **CHAP),
            discovery("10.0.0.5:3260", OPENSTACK, 0), TWO[:1], id="1-lvm-lio-singles"),
        pytest.param(
            {**singles(*TWO[0]), **plurals(TWO[:1]), "target_discovered": False, **CHAP},
            TWO[:1], TWO[:1], id="2-lvm-lio-lists-of-one"),
        pytest.param(
            {**singles(*TWO[0]), **plurals(TWO)}, TWO, TWO, id="3-lvm-lio-secondary-addresses"),
        pytest.param(
            {**singles(*V6_MIX[0]), **plurals(V6_MIX)}, V6_MIX, V6_MIX, id="4-ipv6-and-ipv4"),
        pytest.param(
            singles("10.10.0.1:3260", "iqn.2010-01.com.solidfire:v", 0, target_discovered=False,
                    physical_block_size="4096", logical_block_size="4096", **CHAP),
            discovery("10.10.0.1:3260", "iqn.2010-01.com.solidfire:v", 0),
            [("10.10.0.1:3260", "iqn.2010-01.com.solidfire:v", 0)], id="5-solidfire"),
        pytest.param(
            {**plurals([*PORTS, *PEERS]), "target_discovered": True, **CHAP},
            [*PORTS, *PEERS], [*PORTS, *PEERS], id="7-3par-with-replica"),
        pytest.param(
            singles(*PORTS[0], target_discovered=True),
            discovery("10.0.0.5:3260", "iqn.a:port1", 3), PORTS[:1], id="7-3par-single-path"),
        pytest.param(
            plurals(TWO, target_discovered=False, discard=True), TWO, TWO,
            id="8-nimble-group-scoped"),
        pytest.param(
            singles(*TWO[0], target_discovered=False, discard=True),
            discovery("10.0.0.5:3260", OPENSTACK, 0), TWO[:1], id="8-nimble-volume-scoped"),
        pytest.param(
            {**singles(*V6_MIX[0], volume_id="x"), **plurals(V6_MIX)}, V6_MIX, V6_MIX,
            id="9-netapp"),
        pytest.param(
            {**singles(*TWO[0]), **plurals(TWO), **CHAP, "discard": True,
             "discovery_auth_method": "CHAP", "discovery_auth_username": "user",
             "discovery_auth_password": "twelve bytes"},
            TWO, TWO, id="10-netapp-chap"),
        pytest.param(
            {**singles(*V6_BARE[0]), **plurals(V6_BARE), **CHAP, "auth_username": HOST},
            V6_READ, V6_READ, id="11-storwize-ipv6-without-brackets"),
        pytest.param(
            {**singles(*PORTS[1]), **plurals(PORTS), "discovery_auth_method": "CHAP",
             "discovery_auth_username": "chap_user", "discovery_auth_password": "twelve bytes"},
            PORTS, PORTS, id="12-xtremio"),
        pytest.param(plurals(V6_BARE), V6_READ, V6_READ, id="13-huawei-ipv6"),
        pytest.param(
            plurals(PORTS, target_discovered=True), PORTS, PORTS, id="13-sandstone"),
        pytest.param(
            singles(*TWO[0], target_discovered=True),
            discovery("10.0.0.5:3260", OPENSTACK, 0), TWO[:1], id="15-kaminario-discovery"),
        pytest.param(
            {**singles(*TWO[0], target_discovered=True), **plurals(TWO)}, TWO, TWO,
            id="15-kaminario-disable-discovery"),
        pytest.param(
            {**singles(*PORTS[1]), **plurals(PORTS)}, PORTS, PORTS,
            id="16-unity-vnx-powerstore-lists-also-for-single-path"),
        pytest.param(
            {**singles(*TWO[1], discard=False), **plurals(TWO)}, TWO, TWO,
            id="19-datera-random-single"),
        pytest.param(
            plurals([("172.1.0.1:3261", "iqn.a:space1", 5), ("172.1.0.2:3261", "iqn.a:space1", 5),
                     ("172.2.0.1:860", "iqn.a:space2", 5)]),
            [("172.1.0.1:3261", "iqn.a:space1", 5), ("172.1.0.2:3261", "iqn.a:space1", 5),
             ("172.2.0.1:860", "iqn.a:space2", 5)], None, id="20-infinidat-network-spaces"),
        pytest.param(
            plurals(TWO, target_lun=0), TWO, TWO, id="27-toyou-lists-only"),
        pytest.param(
            singles("[fd00::5]:3260", OPENSTACK, 0, **{**CHAP, "auth_username": HOST}),
            discovery("[fd00::5]:3260", OPENSTACK, 0),
            [("[fd00::5]:3260", OPENSTACK, 0)], id="28-ceph-iscsi"),
        pytest.param(
            singles("storage.example.org:3260", OPENSTACK, 0),
            discovery("storage.example.org:3260", OPENSTACK, 0),
            [("storage.example.org:3260", OPENSTACK, 0)], id="28-hedvig-host-name"),
        pytest.param(
            {"driver_volume_type": "iscsi",
             "data": singles("10.0.0.5:3260", OPENSTACK, 0, **CHAP)},
            discovery("10.0.0.5:3260", OPENSTACK, 0), TWO[:1], id="29-zadara"),
        pytest.param(
            singles("10.0.0.5:3260", OPENSTACK, 1,
                    provider_location=f"10.0.0.5:3260,1 {OPENSTACK} 1"),
            discovery("10.0.0.5:3260", OPENSTACK, 1), [("10.0.0.5:3260", OPENSTACK, 1)],
            id="30-xiv"),
        pytest.param(
            {**singles(*TWO[0]), **plurals(TWO), "target_discovered": True, **CHAP}, TWO, TWO,
            id="32-infortrend"),
        pytest.param(
            plurals(V6_MIX, target_discovered=True), V6_MIX, V6_MIX, id="33-inspur-as13000"),
        pytest.param(
            {**singles("10.0.0.5:3260", "iqn.a:1", 511),
             **plurals([("10.0.0.5:3260", "iqn.a:1", 511), ("10.9.0.5:3260", "iqn.b:1", 511)])},
            [("10.0.0.5:3260", "iqn.a:1", 511), ("10.9.0.5:3260", "iqn.b:1", 511)], None,
            id="34-macrosan-active-active"),
        pytest.param(plurals(PORTS), PORTS, PORTS, id="35-nec"),
        pytest.param(plurals(PEERS), PEERS, PEERS, id="37-eternus-lun-per-group"),
        # Portals without names: os-brick forgets the lists and asks target_portal.
        pytest.param(
            {**singles(PORTALS[0], IQNS[0], 1), "target_portals": PORTALS},
            discovery(PORTALS, IQNS[0], 1), discovery(PORTALS, IQNS[0], 1), id="veritas"),
        # Asked for explicitly by an API consumer: JSON has no tuples, but Python has.
        pytest.param(
            {key: tuple(value) for key, value in PLURAL.items()}, TRIPLES, TRIPLES, id="tuples"),
        pytest.param(MappingProxyType(PLURAL), TRIPLES, TRIPLES, id="read-only-mapping"),
    ],
)  # fmt: skip
def test_drivers(given: Any, expected: Expected, alone: Expected | None) -> None:
    before = copy.deepcopy(dict(given))
    for multipath, wanted in ((True, expected), (False, expected if alone is None else alone)):
        found = plan(given, multipath, strict=True)
        assert places(found) == wanted
        assert found.multipath is multipath
        assert found.warnings == ()
    assert given == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({**PLURAL, **SINGLE}, TRIPLES, id="plurals-win"),
        pytest.param({**PLURAL, "target_portal": "broken", "target_lun": -1}, TRIPLES,
                     id="singles-are-not-looked-at"),
        pytest.param(volume(target_luns=None, target_lun=9),
                     [(p, i, 9) for p, i, _ in TRIPLES], id="luns-missing"),
        pytest.param({**PLURAL, "target_luns": None, "target_lun": 9},
                     [(p, i, 9) for p, i, _ in TRIPLES], id="luns-none"),
        pytest.param(volume(target_luns=[], target_lun=9),
                     [(p, i, 9) for p, i, _ in TRIPLES], id="luns-empty"),
        pytest.param(volume(target_luns=[3]), [(p, i, 3) for p, i, _ in TRIPLES],
                     id="one-lun-serves-all"),
        pytest.param(volume(target_iqns=IQNS[:1]), [(p, IQNS[0], n) for p, _, n in TRIPLES],
                     id="one-name-serves-all"),
        pytest.param(volume(target_luns=["4", "005", 6, "7"]), TRIPLES, id="luns-as-strings"),
        pytest.param({**SINGLE, "target_lun": "0"}, [(PORTALS[0], IQNS[0], 0)],
                     id="lun-as-string"),
        pytest.param({**SINGLE, "target_lun": 2**63 - 1}, [(PORTALS[0], IQNS[0], 2**63 - 1)],
                     id="highest-lun"),
        pytest.param({**SINGLE, "target_portals": None, "target_iqns": None, "target_luns": None},
                     SINGLE_TRIPLE, id="plurals-none"),
        pytest.param({**SINGLE, "target_portals": [], "target_iqns": [], "target_luns": ()},
                     SINGLE_TRIPLE, id="plurals-empty"),
        pytest.param({**SINGLE, "target_portal": "192.0.2.1"}, SINGLE_TRIPLE, id="no-port"),
        pytest.param({**SINGLE, "target_portal": "192.0.2.1:3260,1"}, SINGLE_TRIPLE, id="tag"),
        pytest.param({**SINGLE, "discard": True, "qos_specs": None, "auth_method": None,
                      "enforce_multipath": True, "encrypted": True, "device_path": "/dev/sda",
                      "access_mode": "ro", "cacheable": False, "attachment_id": "x"},
                     SINGLE_TRIPLE, id="keys-that-mean-nothing-here"),
        pytest.param({**SINGLE, "target_iqn": "eui.02004567A425678D"},
                     [(PORTALS[0], "eui.02004567A425678D", 1)], id="eui"),
        pytest.param({**SINGLE, "target_iqn": "naa.52004567BA64678D"},
                     [(PORTALS[0], "naa.52004567BA64678D", 1)], id="naa"),
        pytest.param({**SINGLE, "target_iqn": "iqn.2010-10.org.Example:A_b"},
                     [(PORTALS[0], "iqn.2010-10.org.Example:A_b", 1)], id="case-is-kept"),
        # Discovery
        pytest.param({"target_portal": PORTALS[0], "target_lun": 1},
                     discovery(PORTALS[0], None, 1), id="single-without-name"),
        pytest.param({"target_portals": PORTALS, "target_lun": "2"},
                     discovery(PORTALS, None, 2), id="portals-without-names"),
        pytest.param({"target_portals": PORTALS[:1], "target_lun": 2, "target_iqn": IQNS[0]},
                     discovery(PORTALS[:1], IQNS[0], 2), id="one-portal-in-a-list-with-a-name"),
        pytest.param(volume(target_iqns=[], target_luns=[2]), discovery(PORTALS, None, 2),
                     id="names-empty"),
        pytest.param(volume(target_iqns=None, target_luns=[2, "2", 2], target_lun=5),
                     discovery(PORTALS, None, 2), id="luns-alike"),
        pytest.param({"target_portals": ["B.example.", "b.example:3260", "192.0.2.1"],
                      "target_lun": 1},
                     discovery(["b.example:3260", "192.0.2.1:3260"], None, 1),
                     id="duplicate-portals-to-ask"),
        pytest.param({"target_portal": PORTALS[0], "target_lun": 300, "addressing_mode": "SAM2"},
                     discovery(PORTALS[0], None, 300 + 16384), id="addressing-mode"),
    ],
)  # fmt: skip
def test_rules(given: Any, expected: Expected) -> None:
    found = plan(given, multipath=False, strict=True)
    assert places(found) == expected
    assert found.warnings == ()


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda data: data, id="data"),
        pytest.param(lambda data: {"data": data}, id="data-key"),
        pytest.param(lambda data: {"driver_volume_type": "iscsi", "data": data}, id="nested"),
        pytest.param(lambda data: {"driver_volume_type": "iscsi", **data}, id="flat"),
        pytest.param(
            lambda data: {"connection_info": {"driver_volume_type": "iscsi", "data": data}},
            id="answer-of-the-api",
        ),
        pytest.param(
            lambda data: {"connection_info": {"driver_volume_type": "iscsi", **data}},
            id="answer-of-the-api-flat",
        ),
    ],
)
def test_wrappers(wrap: Any) -> None:
    given = wrap({**PLURAL, **SINGLE, **CHAP})
    before = copy.deepcopy(given)
    found = plan(given)
    assert places(found) == TRIPLES
    assert found.chap is not None
    assert given == before


def test_the_example_of_the_spec() -> None:
    """The spec, "REST API impact".

    '"iqn.2014-2.org.example:vol1-1", lun=1 is for portal "10.0.1.2:3260", and
    "iqn.2014-2.org.example:vol1-2", lun=2 is for portal "10.0.2.2:3260".'
    """
    given = {
        "connection_info": {
            "driver_volume_type": "iscsi",
            "data": {
                "target_portals": ["10.0.1.2:3260", "10.0.2.2:3260"],
                "target_iqns": ["iqn.2014-2.org.example:vol1-1", "iqn.2014-2.org.example:vol1-2"],
                "target_luns": [1, 2],
            },
        }
    }
    assert plan(given).targets == (
        Target(Portal.parse("10.0.1.2:3260"), "iqn.2014-2.org.example:vol1-1", 1),
        Target(Portal.parse("10.0.2.2:3260"), "iqn.2014-2.org.example:vol1-2", 2),
    )


def test_lists_need_no_discovery() -> None:
    """The spec, "Proposed change" and "Performance Impact".

    'When nova-compute recognizes these parameters, it will log into every portal
    address/target/lun.' and 'Since nova-compute can omit discovery query to find multiple portals
    and targets, this change may make volume-attach/detach operations faster.'
    """
    found = plan({**SINGLE, **PLURAL}, multipath=True)
    assert found.discovery is None
    assert places(found) == TRIPLES
    assert plan({**SINGLE, "target_portals": PORTALS[:1], "target_iqns": IQNS[:1]}).targets


def test_singles_and_multipath_need_discovery() -> None:
    """The spec, "Developer impact".

    'Such drivers will return single 'target_portal'/'target_iqn'/'target_lun' even if
    'multipath=True' is specified. Then the connector must send discovery query to the returned
    portal in order to find the multipath portals and targets, like the existing design.'
    """
    found = plan(SINGLE, multipath=True)
    assert found.targets == ()
    assert found.discovery == Discovery((Portal.parse(PORTALS[0]),), IQNS[0], 1)


def test_singles_without_multipath_are_one_target() -> None:
    """The spec, "Proposed change".

    'When the 'multipath=False' is specified or the key is omitted, the API must return
    'target_portal'/'target_iqn'/'target_lun' set.'
    """
    found = plan(SINGLE, multipath=False)
    assert found.discovery is None
    assert places(found) == SINGLE_TRIPLE


def test_singles_do_when_the_backend_has_no_multipath() -> None:
    """The spec, "Proposed change".

    'When the backend doesn't support (or not configured to support) multipath, the driver may
    return current 'target_portal'/'target_iqn'/'target_lun' set.'
    """
    assert plan(SINGLE, multipath=True, strict=True).warnings == ()


@pytest.mark.parametrize(
    ("mode", "lun", "expected"),
    [
        (None, 300, 300),
        ("SAM", 300, 300),
        ("transparent", 300, 300),
        ("SAM2", 255, 255),
        ("SAM2", 256, 256 + 16384),
        ("SAM2", "256", 256 + 16384),
        ("SAM3-flat", 1, 1 + 16384),
        ("SAM3-flat", "16383", 16383 + 16384),
    ],
)
def test_addressing_mode(mode: str | None, lun: object, expected: int) -> None:
    found = plan({**SINGLE, "target_lun": lun, "addressing_mode": mode}, multipath=False)
    assert found.targets[0].lun == expected


WARNED = [
    pytest.param(volume(target_iqns=IQNS[:3]), TRIPLES[:3],
                 ["4, 3 and 4 entries", "only the first 3"], id="fewer-names"),
    pytest.param(volume(target_luns=LUNS[:2]), TRIPLES[:2],
                 ["4, 4 and 2 entries", "only the first 2"], id="fewer-luns"),
    pytest.param(plurals(PORTS, target_iqns=["iqn.a:port1", "iqn.a:port2"] * 2), PORTS,
                 ["2, 4 and 2 entries"], id="24-yadro-more-names"),
    pytest.param(volume(target_portals=PORTALS[:1]), TRIPLES[:1],
                 ["1, 4 and 4 entries"], id="one-portal-does-not-serve-all-names"),
    pytest.param({**SINGLE, "target_iqns": IQNS, "target_luns": [7]}, SINGLE_TRIPLE,
                 ["target_iqns and target_luns given", "target_portals is missing"],
                 id="lists-without-portals"),
    pytest.param({**SINGLE, "target_portals": [], "target_luns": [7]}, SINGLE_TRIPLE,
                 ["target_luns given", "target_lun are used"], id="luns-without-portals"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected", "parts"), WARNED)
def test_warned(given: Any, expected: Places, parts: list[str]) -> None:
    found = plan(given, multipath=False)
    assert places(found) == expected
    (warning,) = found.warnings
    for part in parts:
        assert part in warning


@pytest.mark.parametrize(("given", "expected", "parts"), WARNED)
def test_warned_becomes_an_error(given: Any, expected: Places, parts: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="give") as caught:
        plan(given, multipath=False, strict=True)
    assert parts[0] in str(caught.value)


def test_duplicates_collapse_by_value() -> None:
    found = plan(
        {
            "target_portals": [
                "[2001:db8::1]:3260",
                "2001:DB8:0::1",
                "192.0.2.1",
                "192.0.2.1:3260,1",
                "Storage.example.",
                "storage.EXAMPLE:3260",
            ],
            "target_iqns": IQNS[:1],
            "target_lun": "1",
        }
    )
    assert found.targets == (
        Target(Portal.parse("[2001:db8::1]:3260"), IQNS[0], 1),
        Target(Portal.parse("192.0.2.1:3260"), IQNS[0], 1),
        Target(NamedPortal("storage.example"), IQNS[0], 1),
    )
    assert found.warnings == ()


def test_the_longest_name_is_taken() -> None:
    name = "iqn." + "a" * 219
    assert plan({**SINGLE, "target_iqn": name}, multipath=False).targets[0].iqn == name


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, ["target_portal is missing", "target_portals"]),
        ([SINGLE], ["list, not a dict", "connection_info"]),
        (None, ["NoneType, not a dict"]),
        ({"data": None}, ["data is NoneType"]),
        ({"data": [SINGLE]}, ["data is list"]),
        ({"connection_info": "{}"}, ["connection_info is str, not a dict"]),
        ({"connection_info": {"data": 5}}, ["data is int, not a dict"]),
        (volume(target_portals=None), ["target_portals is missing or empty", "target_iqns"]),
        (volume(target_portals=[]), ["target_portals is missing or empty", "target_iqns"]),
        ({"target_portal": PORTALS[0], "target_iqns": IQNS, "target_lun": 1},
         ["target_portals is missing or empty", "target_iqns"]),
        ({"target_portals": [], "target_iqns": []}, ["target_portal is missing"]),
        (volume(target_portals="192.0.2.1:3260"), ["target_portals is str, not a list"]),
        (volume(target_iqns=b"iqn"), ["target_iqns is bytes, not a list"]),
        (volume(target_luns=5), ["target_luns is int, not a list"]),
        (volume(target_luns=0), ["target_luns is int, not a list"]),
        (volume(target_luns={4, 5}), ["target_luns is set, not a list"]),
        (volume(target_portals=range(10**9)), ["1000000000 entries", "at most 1024"]),
        (volume(target_luns=None), ["target_lun is missing", "target_luns"]),
        ({**SINGLE, "target_lun": None}, ["target_lun is missing"]),
        ({"target_portal": PORTALS[0]}, ["target_lun is missing"]),
        ({"target_portals": PORTALS, "target_iqn": IQNS[0]}, ["target_lun is missing"]),
        (volume(target_iqns=None), ["4 different LUNs", "add target_iqns"]),
        ({"target_iqn": IQNS[0], "target_lun": 1}, ["target_portal is missing"]),
        # Portals
        ({**SINGLE, "target_portal": "192.0.2.1:0"}, ["target_portal: ", "'0'", "1 and 65535"]),
        ({**SINGLE, "target_portal": "storage.example:0"}, ["target_portal: ", "1 and 65535"]),
        ({**SINGLE, "target_portal": "192.0.2.256"}, ["target_portal: ", "numeric address"]),
        (volume(target_portals=[*PORTALS[:3], "192.0.2.4:70000"]),
         ["target_portals[3]: ", "'70000'", "1 and 65535"]),
        (volume(target_portals=[PORTALS[0], None, *PORTALS[2:]]),
         ["target_portals[1]", "NoneType"]),
        (volume(target_portals=["192.0.2.1\n:3260", *PORTALS[1:]]), ["target_portals[0]", "\\n"]),
        ({"target_portals": [PORTALS[0], "x y"], "target_lun": 1}, ["target_portals[1]", "'x y'"]),
        # Names
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a\nb"}, ["target_iqn", "a\\nb", "iqn."]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a\n"}, ["target_iqn", "\\n"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a b"}, ["only letters, digits"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a/b"}, ["a/b", "only letters, digits"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.example:a\0"}, ["\\x00"]),
        (volume(target_iqns=[IQNS[0], "iqn." + "a" * 296, *IQNS[2:]]),
         ["target_iqns[1]", "300 bytes", "at most 223"]),
        ({**SINGLE, "target_iqn": "iqn.2010-10.org.ex\u00e4mple:1"}, ["\\xe4", "only letters"]),
        ({**SINGLE, "target_iqn": "iqn." + "\u00e4" * 110}, ["224 bytes"]),
        ({**SINGLE, "target_iqn": "iqn.\udcff"}, ["\\udcff"]),
        ({**SINGLE, "target_iqn": b"iqn.2010-10.org.example:1"}, ["bytes, not a string"]),
        ({**SINGLE, "target_iqn": 5}, ["int, not a string"]),
        ({**SINGLE, "target_iqn": ""}, ["not an iSCSI name"]),
        ({**SINGLE, "target_iqn": "iqn."}, ["not an iSCSI name"]),
        ({**SINGLE, "target_iqn": "storage:1"}, ["not an iSCSI name", "eui."]),
        ({**SINGLE, "target_iqn": "IQN.2010-10.org.example:1"}, ["IQN.", "begin with iqn."]),
        ({**SINGLE, "target_iqn": "Naa.52004567BA64678D"}, ["Naa.", "begin with naa."]),
        ({"target_portals": PORTALS, "target_lun": 1, "target_iqn": "x"}, ["target_iqn: 'x'"]),
        # LUNs
        ({**SINGLE, "target_lun": -1}, ["target_lun: -1", "0 and 2^63 - 1"]),
        ({**SINGLE, "target_lun": 2**63}, ["target_lun: 9223372036854775808", "2^63"]),
        (volume(target_luns=[4, 5, 2**64, 7]), ["target_luns[2]", "2^63"]),
        ({**SINGLE, "target_lun": 10**5000}, ["target_lun: <int of many digits>"]),
        ({**SINGLE, "target_lun": "9" * 5000}, ["target_lun: '999", "not an integer"]),
        ({**SINGLE, "target_lun": "0x1"}, ["'0x1' is not an integer"]),
        ({**SINGLE, "target_lun": "-1"}, ["'-1' is not an integer"]),
        ({**SINGLE, "target_lun": " 1"}, ["is not an integer"]),
        ({**SINGLE, "target_lun": ""}, ["'' is not an integer"]),
        ({**SINGLE, "target_lun": "\u0663"}, ["is not an integer"]),
        ({**SINGLE, "target_lun": 1.0}, ["1.0 is not an integer"]),
        ({**SINGLE, "target_lun": True}, ["True is not an integer"]),
        ({**SINGLE, "target_lun": [1]}, ["[1] is not an integer"]),
        (volume(target_luns=[4, None, 6, 7]), ["target_luns[1]: None"]),
        ({**SINGLE, "addressing_mode": "SAM4"}, ["addressing_mode 'SAM4'", "SAM3-flat"]),
        ({**SINGLE, "addressing_mode": "sam2"}, ["addressing_mode 'sam2'"]),
        ({**SINGLE, "addressing_mode": "SAM3-flat", "target_lun": 16384}, ["16383"]),
        ({**SINGLE, "addressing_mode": "SAM3-flat", "target_lun": -1}, ["target_lun: -1"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("multipath", [True, False])
def test_refused(given: Any, parts: list[str], multipath: bool) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        plan(given, multipath)
    message = str(caught.value)
    for part in parts:
        assert part in message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 300
    assert caught.value.phase == "request"
    assert not caught.value.retryable


@pytest.mark.parametrize("flag", [None, 0, 1, "no", []])
def test_flags_are_bools(flag: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"multipath .* is not a bool"):
        plan(SINGLE, flag)
    with pytest.raises(InvalidRequestError, match=r"strict .* is not a bool"):
        plan(SINGLE, strict=flag)


@pytest.mark.parametrize(
    "given",
    [
        {"driver_volume_type": "iser", "data": SINGLE},
        {"driver_volume_type": "ISCSI", "data": SINGLE},
        {"driver_volume_type": "rbd", "data": {}},
        {"driver_volume_type": None, **SINGLE},
        {"connection_info": {"driver_volume_type": "iser", "data": SINGLE}},
        {"driver_volume_type": "iscsi", "data": {"driver_volume_type": "iser", **SINGLE}},
    ],
)
def test_other_transports_are_refused_in_words(given: Any) -> None:
    with pytest.raises(UnsupportedRequestError, match="iSCSI volumes only"):
        plan(given)
