# SPDX-License-Identifier: Apache-2.0
"""A plan is a value, made without touching anything, for whatever it is made of."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypath import Discovery, ManypathError, NamedPortal, Plan, Portal, Target, plan, properties

IQN = "iqn.2010-10.org.example:1"
SINGLE = {"target_portal": "192.0.2.1", "target_iqn": IQN, "target_lun": 1}
NAMED = {"target_portals": ["a.example", "b.example:860"], "target_iqns": [IQN], "target_lun": 1}
CHAP = {"auth_method": "CHAP", "auth_username": "user", "auth_password": "xyzzy"}

TOUCHING_NOTHING = f"""
import sys

seen = []
watching = False

def look(event, _):
    if watching:
        seen.append(event)

from manypath import plan

given = [{NAMED!r}, {SINGLE!r}, {{**{SINGLE!r}, **{CHAP!r}}}]
plan(given[0])
sys.addaudithook(look)
watching = True
for one in given:
    for multipath in (True, False):
        plan(one, multipath)
watching = False
assert seen == [], seen
"""


def test_touches_neither_host_nor_network() -> None:
    subprocess.run([sys.executable, "-c", TOUCHING_NOTHING], check=True)


def test_as_dict_is_json() -> None:
    assert json.loads(json.dumps(plan(NAMED).as_dict())) == {
        "multipath": True,
        "targets": [
            {"portal": "a.example:3260", "iqn": IQN, "lun": 1},
            {"portal": "b.example:860", "iqn": IQN, "lun": 1},
        ],
        "discovery": None,
        "warnings": [],
    }
    assert json.loads(json.dumps(plan(SINGLE).as_dict()))["discovery"] == {
        "portals": ["192.0.2.1:3260"],
        "iqn": IQN,
        "lun": 1,
    }


def test_is_a_value() -> None:
    one = plan(NAMED, multipath=False)
    assert one == Plan(
        False,
        (Target(NamedPortal("a.example"), IQN, 1), Target(NamedPortal("b.example", 860), IQN, 1)),
        None,
        (),
    )
    assert len({one, plan(dict(NAMED), multipath=False)}) == 1
    for twin in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert twin == one
    with pytest.raises(AttributeError):
        one.multipath = True  # type: ignore[misc]


def test_without_chap_credentials_are_not_looked_at() -> None:
    broken = {**SINGLE, "auth_method": "KRB5", "auth_password": 5, "discovery_auth_method": "CHAP"}
    found = properties.plan_without_chap(broken)
    assert found.discovery == Discovery((Portal.parse("192.0.2.1"),), IQN, 1)
    assert found.chap is None
    assert found.discovery_chap is None
    assert properties.plan_without_chap(broken, multipath=False).targets
    assert properties.plan_without_chap({**NAMED, "target_luns": [1, 2, 3]}).warnings


KEYS = [
    "connection_info",
    "data",
    "driver_volume_type",
    "target_portal",
    "target_portals",
    "target_iqn",
    "target_iqns",
    "target_lun",
    "target_luns",
    "addressing_mode",
    *(
        f"{prefix}auth_{name}"
        for prefix in ("", "discovery_")
        for name in ("method", "username", "password", "username_in", "password_in", "algorithms")
    ),
]
PORTAL = st.sampled_from(["192.0.2.1:3260", "[fd00::1]", "fd00::1:3260", "a.example", "x y", ""])
NAME = st.sampled_from([IQN, "eui.02004567A425678D", "IQN.x", "iqn.", "iqn.\u00e4"])
WORD = st.sampled_from(["iscsi", "iser", "CHAP", "none", "SAM2", "SAM3-flat", "MD5,SHA256", "7"])
LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.text(alphabet=st.characters(categories=["Cs"]), max_size=3)
    | st.binary(max_size=20)
    | PORTAL
    | NAME
    | WORD
)
JUNK: st.SearchStrategy[Any] = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.frozensets(LEAF, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | LEAF, inner, max_size=12)
    ),
    max_leaves=30,
)
SECRET = st.sampled_from(
    [
        "xyzzy",
        b"xyzzy",
        "xyzzy" * 60,
        "xyzzy\udcff",
        "xyzzy\u00e4",
        ["xyzzy"],
        {"xyzzy": 1},
        "",
        None,
    ]
)
#: Mostly right, so that the deeper rules are reached.
LIKELY = st.fixed_dictionaries(
    {},
    optional={
        "target_portal": PORTAL,
        "target_portals": st.lists(PORTAL, max_size=4) | LEAF,
        "target_iqn": NAME | LEAF,
        "target_iqns": st.lists(NAME, max_size=4) | LEAF,
        "target_lun": st.integers(-1, 2**64) | LEAF,
        "target_luns": st.lists(st.integers(0, 300), max_size=4) | LEAF,
        "addressing_mode": WORD | st.none(),
        **{key: SECRET if "password" in key else LEAF for key in KEYS if "auth_" in key},
        "auth_method": st.sampled_from(["CHAP", None]),
        "auth_username": st.sampled_from(["user", None]) | LEAF,
    },
)


@given(st.dictionaries(st.sampled_from(KEYS) | LEAF, JUNK) | LIKELY | JUNK, st.booleans())
def test_anything_is_planned_or_refused(properties: Any, strict: bool) -> None:
    before = copy.deepcopy(properties)
    for multipath in (True, False):
        try:
            found = plan(properties, multipath, strict=strict)
        except ManypathError as error:
            message = str(error)
            assert message.isascii()
            assert message.isprintable()
            assert "xyzzy" not in message
        else:
            assert bool(found.targets) is (found.discovery is None)
            assert not (strict and found.warnings)
            assert "xyzzy" not in json.dumps(found.as_dict())
            assert "xyzzy" not in repr(found)
    # In a list, because NaN is equal to itself only there.
    assert [properties] == [before]
