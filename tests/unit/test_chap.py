# SPDX-License-Identifier: Apache-2.0
"""CHAP credentials: which are taken, which refused, and that nothing shows a secret."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from manypath import Credentials, Plan, plan, properties
from manypath.errors import InvalidRequestError, UnsupportedRequestError

IQN = "iqn.2010-10.org.example:1"
SINGLE = {"target_portal": "192.0.2.1", "target_iqn": IQN, "target_lun": 1}
LISTS = {
    "target_portals": ["192.0.2.1", "192.0.2.2"],
    "target_iqns": [IQN],
    "target_lun": 1,
}
SECRET = "xyzzy-plugh-plover"
SECRET_IN = "frotz-gnusto-blorb"

PREFIXES = ("auth_", "discovery_auth_")


def chap(prefix: str = "auth_", **changes: Any) -> dict[str, Any]:
    """Properties that ask for CHAP, with other values; None removes a key."""
    keys = {"method": "CHAP", "username": "alice", "password": SECRET, **changes}
    return {f"{prefix}{key}": value for key, value in keys.items() if value is not None}


def mutual(prefix: str = "auth_", **changes: Any) -> dict[str, Any]:
    return chap(prefix, **{"username_in": "bob", "password_in": SECRET_IN, **changes})


def credentials(given: dict[str, Any]) -> Credentials:
    found = plan({**LISTS, **given}, strict=True).chap
    assert found is not None
    return found


def test_credentials_are_for_all_portals() -> None:
    """The spec, "Security impact".

    'Note that if any CHAP credentials are provided in connection_info, they must be applied on the
    all target_portals.'
    """
    found = plan({**LISTS, **chap()})
    assert len(found.targets) == 2
    assert found.chap is not None
    assert found.chap.username == "alice"
    assert found.chap.algorithms == ("MD5",)
    assert found.chap.username_in is None
    assert found.chap.password_in is None


@pytest.mark.parametrize("password", [SECRET, SECRET.encode(), "\u00e4" * 127, b"\0\xff" * 127])
def test_the_password_is_not_copied(password: str | bytes) -> None:
    found = credentials(mutual(password=password, password_in=(other := SECRET_IN * 2)))
    assert found.password is password
    assert found.password_in is other


@pytest.mark.parametrize("method", ["CHAP", "chap", "Chap"])
def test_method_in_any_case(method: str) -> None:
    assert credentials(chap(method=method)).username == "alice"


@pytest.mark.parametrize("method", [None, "", "None", "none", "NONE"])
def test_no_method(method: str | None) -> None:
    found = plan({**SINGLE, "auth_method": method, "auth_username": None, "auth_password": ""})
    assert found.chap is None
    assert found.discovery_chap is None
    assert found.warnings == ()


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("method", [None, "None"])
@pytest.mark.parametrize("keys", [("username", "password"), ("username",), ("password",)])
def test_credentials_without_method_are_warned_of(
    prefix: str, method: str | None, keys: tuple[str, ...]
) -> None:
    given = {
        key: value
        for key, value in chap(prefix, method=method).items()
        if key.removeprefix(prefix) in ("method", *keys)
    }
    found = plan({**SINGLE, **given})
    assert found.chap is None
    assert found.discovery_chap is None
    (warning,) = found.warnings
    for key in keys:
        assert f"{prefix}{key}" in warning
    assert "without CHAP" in warning
    assert SECRET not in warning
    with pytest.raises(InvalidRequestError, match=f"set {prefix}method to 'CHAP'") as caught:
        plan({**SINGLE, **given}, strict=True)
    assert SECRET not in str(caught.value)


def test_mutual() -> None:
    found = credentials(mutual())
    assert (found.username, found.password) == ("alice", SECRET)
    assert (found.username_in, found.password_in) == ("bob", SECRET_IN)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ("MD5",)),
        ("SHA256", ("SHA256",)),
        ("sha3-256,Sha256", ("SHA3-256", "SHA256")),
        (" SHA1 , MD5 ", ("SHA1", "MD5")),
        (["SHA3-256", "sha256", "SHA1", "md5"], ("SHA3-256", "SHA256", "SHA1", "MD5")),
        (("MD5",), ("MD5",)),
    ],
)
def test_algorithms(given: Any, expected: tuple[str, ...]) -> None:
    assert credentials(chap(algorithms=given)).algorithms == expected


def test_sessions_and_discovery_have_their_own() -> None:
    given = {**SINGLE, **chap(), **mutual("discovery_auth_", username="carol", algorithms="SHA1")}
    found = plan(given, strict=True)
    assert found.chap is not None
    assert found.discovery_chap is not None
    assert found.chap.username == "alice"
    assert found.discovery_chap.username == "carol"
    assert found.discovery_chap.username_in == "bob"
    assert found.discovery_chap.algorithms == ("SHA1",)
    assert plan({**SINGLE, **chap()}).discovery_chap is None


def test_those_of_discovery_are_not_looked_at_without_discovery() -> None:
    given = {**LISTS, **chap("discovery_auth_", password=5, method="KRB5")}
    found = plan(given, strict=True)
    assert found.chap is None
    assert found.discovery_chap is None


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: {"data": data}])
def test_discovery_credentials(wrap: Callable[[Any], Any]) -> None:
    found = properties.discovery_credentials(wrap(chap("discovery_auth_")))
    assert found is not None
    assert found.username == "alice"
    assert properties.discovery_credentials(wrap(chap())) is None
    assert properties.discovery_credentials(wrap({})) is None
    with pytest.raises(InvalidRequestError, match="set discovery_auth_method"):
        properties.discovery_credentials(wrap(chap("discovery_auth_", method=None)))


#: Changes to credentials, and what the message says; {p} is the prefix.
BAD = [
    pytest.param(chap, {"username": None}, ["{p}username is missing"], id="no-username"),
    pytest.param(chap, {"password": None}, ["{p}password is missing"], id="no-password"),
    pytest.param(chap, {"username": ""}, ["{p}username is empty", "255"], id="empty-username"),
    pytest.param(chap, {"password": ""}, ["{p}password is empty", "255"], id="empty-password"),
    pytest.param(chap, {"password": b""}, ["{p}password is empty"], id="empty-bytes"),
    pytest.param(chap, {"username": "u" * 256}, ["{p}username", "255 bytes"], id="long-username"),
    pytest.param(chap, {"username": "\u00e4" * 128}, ["{p}username", "255"], id="long-in-utf8"),
    pytest.param(chap, {"username": "u\0"}, ["{p}username", "NUL"], id="nul-in-username"),
    pytest.param(chap, {"username": b"u"}, ["{p}username is bytes"], id="username-bytes"),
    pytest.param(chap, {"username": "\udcff"}, ["{p}username", "surrogate"], id="surrogate"),
    pytest.param(
        chap, {"password": SECRET * 15}, ["{p}password", "more than 255"], id="long-password"
    ),
    pytest.param(chap, {"password": SECRET.encode() * 15}, ["{p}password", "255"], id="long-bytes"),
    pytest.param(
        chap, {"password": SECRET + "\u20ac" * 80}, ["{p}password", "255"], id="long-euros"
    ),
    pytest.param(
        chap, {"password": SECRET + "\udcff"}, ["{p}password", "surrogate"], id="odd-password"
    ),
    pytest.param(chap, {"password": [SECRET]}, ["{p}password is list"], id="password-list"),
    pytest.param(
        chap, {"password": bytearray(SECRET.encode())}, ["{p}password is bytearray"], id="array"
    ),
    pytest.param(chap, {"password": 5}, ["{p}password is int"], id="password-int"),
    pytest.param(chap, {"algorithms": "MD4"}, ["{p}algorithms", "'MD4'", "SHA3-256"], id="md4"),
    pytest.param(chap, {"algorithms": "SHA-256"}, ["'SHA-256'", "SHA256"], id="other-spelling"),
    pytest.param(chap, {"algorithms": ["MD5", 5]}, ["type int"], id="algorithm-int"),
    pytest.param(chap, {"algorithms": "MD5,md5"}, ["twice"], id="algorithm-twice"),
    pytest.param(chap, {"algorithms": ""}, ["'' is not known"], id="no-algorithm"),
    pytest.param(chap, {"algorithms": []}, ["{p}algorithms is empty"], id="empty-algorithms"),
    pytest.param(chap, {"algorithms": {"MD5"}}, ["is set, not a list"], id="algorithm-set"),
    pytest.param(chap, {"algorithms": b"MD5"}, ["is bytes, not a list"], id="algorithm-bytes"),
    pytest.param(mutual, {"username_in": None}, ["{p}username_in is missing"], id="no-name-in"),
    pytest.param(mutual, {"password_in": None}, ["{p}password_in is missing"], id="no-secret-in"),
    pytest.param(mutual, {"username_in": ""}, ["{p}username_in is empty"], id="empty-name-in"),
    pytest.param(mutual, {"password_in": ""}, ["{p}password_in is empty"], id="empty-secret-in"),
    pytest.param(
        mutual, {"password_in": SECRET_IN * 15}, ["{p}password_in", "255"], id="long-secret-in"
    ),
    pytest.param(mutual, {"password_in": SECRET}, ["{p}password_in is the same"], id="same-secret"),
    pytest.param(
        mutual, {"password_in": SECRET.encode()}, ["is the same"], id="same-secret-as-bytes"
    ),
    pytest.param(
        mutual,
        {"password": SECRET.encode(), "password_in": SECRET.encode()},
        ["is the same"],
        id="same-bytes",
    ),
    pytest.param(
        mutual,
        {"password": SECRET + "\u00e4", "password_in": SECRET + "\u00e4"},
        ["is the same"],
        id="same-secret-not-ascii",
    ),
    pytest.param(
        mutual,
        {"password": SECRET + "\u00e4", "password_in": (SECRET + "\u00e4").encode()},
        ["is the same"],
        id="same-secret-not-ascii-as-bytes",
    ),
    pytest.param(
        mutual,
        {"method": None},
        ["{p}username_in asks for mutual", "{p}method"],
        id="mutual-without-method",
    ),
    pytest.param(
        mutual,
        {"method": "None", "username": None, "password": None, "username_in": None},
        ["{p}password_in asks for mutual"],
        id="mutual-without-outgoing-secret",
    ),
    pytest.param(
        mutual, {"password": None}, ["{p}password is missing"], id="mutual-without-password"
    ),
    pytest.param(chap, {"method": 5}, ["{p}method is int"], id="method-int"),
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("make", "changes", "parts"), BAD)
def test_refused_without_telling(
    prefix: str,
    make: Callable[..., dict[str, Any]],
    changes: dict[str, Any],
    parts: list[str],
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        plan({**SINGLE, **make(prefix, **changes)})
    message = str(caught.value)
    for part in parts:
        assert part.format(p=prefix) in message
    assert message.isascii()
    assert message.isprintable()
    assert caught.value.phase == "request"
    shown = "".join(traceback.format_exception(caught.value))
    shown += f"{caught.value!r} {caught.value.args} {json.dumps(caught.value.as_dict())}"
    assert SECRET not in shown
    assert SECRET_IN not in shown


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("method", ["KRB5", "CHAP,None", "chap "])
def test_other_methods_are_refused(prefix: str, method: str) -> None:
    with pytest.raises(UnsupportedRequestError, match=f"{prefix}method .* use 'CHAP'") as caught:
        plan({**SINGLE, **chap(prefix, method=method)})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        (b"a", b"b"),
        ("\u00e4", "\u00c4"),
        ("a", b"b"),
        ("\u00e4", b"\xe4"),
        ("a\u00e4", "a\u00e4".encode("utf-16")),
    ],
)
def test_different_secrets_are_taken(one: str | bytes, other: str | bytes) -> None:
    assert credentials(mutual(password=one, password_in=other)).password_in == other


@pytest.fixture
def secretive() -> Plan:
    return plan({**SINGLE, **mutual(), **chap("discovery_auth_", password=SECRET_IN)})


SHOW: list[Callable[[Plan], object]] = [
    repr,
    str,
    "{}".format,
    pprint.pformat,
    Plan.as_dict,
    lambda found: json.dumps(found.as_dict()),
    dataclasses.asdict,
    dataclasses.astuple,
    copy.deepcopy,
    lambda found: found.chap,
    lambda found: [f"{found.chap}", [found.chap], {"chap": found.chap}],
    lambda found: dir(found.chap),
]


@pytest.mark.parametrize("show", SHOW)
def test_nothing_shows_a_secret(secretive: Plan, show: Callable[[Plan], object]) -> None:
    shown = f"{show(secretive)} {show(secretive)!r}"
    assert SECRET not in shown
    assert SECRET_IN not in shown


def test_plans_do_not_compare_credentials(secretive: Plan) -> None:
    assert secretive == plan(SINGLE)
    assert hash(secretive) == hash(plan(SINGLE))


def test_repr() -> None:
    assert repr(Credentials("alice", SECRET)) == (
        "Credentials(username='alice', password=<hidden>, algorithms=('MD5',))"
    )
    assert repr(Credentials("alice", SECRET, "b\n", SECRET_IN, ("SHA1",))) == (
        "Credentials(username='alice', password=<hidden>, username_in='b\\n', "
        "password_in=<hidden>, algorithms=('SHA1',))"
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_credentials_are_not_pickled(secretive: Plan, protocol: int) -> None:
    for value in (secretive, secretive.chap):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            pickle.dumps(value, protocol)
        assert SECRET not in str(caught.value)
    assert secretive.chap is not None
    with pytest.raises(TypeError, match="cannot be pickled"):
        secretive.chap.__getstate__()


def test_credentials_do_not_change(secretive: Plan) -> None:
    found = secretive.chap
    assert found is not None
    for name in (*Credentials.__slots__, "other"):
        with pytest.raises(AttributeError, match="do not change"):
            setattr(found, name, "x")
        with pytest.raises(AttributeError, match="do not change"):
            delattr(found, name)
    assert not hasattr(found, "__dict__")
    assert found != Credentials("alice", SECRET, "bob", SECRET_IN)
    assert copy.copy(found) is found
    assert copy.deepcopy(found) is found
    assert copy.deepcopy(secretive).chap is found


def test_a_plan_can_be_changed_without_losing_its_credentials(secretive: Plan) -> None:
    changed = dataclasses.replace(secretive, warnings=("x",))
    assert changed.chap is secretive.chap
