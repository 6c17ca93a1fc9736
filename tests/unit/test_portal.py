# SPDX-License-Identifier: Apache-2.0
"""Portals: the spellings of drivers, and what is refused."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypath import Portal
from manypath.errors import Code, InvalidRequestError, UnsupportedRequestError

V4 = ipaddress.ip_address("192.0.2.7")
V6 = ipaddress.ip_address("2001:db8::7")


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("192.0.2.7:3260", V4, 3260),
        ("192.0.2.7:3261", V4, 3261),
        ("192.0.2.7", V4, 3260),
        ("192.0.2.7:3260,1", V4, 3260),
        ("192.0.2.7:3260,-1", V4, 3260),
        ("192.0.2.7,1", V4, 3260),
        ("[2001:db8::7]:3260", V6, 3260),
        ("[2001:db8::7]:860", V6, 860),
        ("[2001:DB8:0::7]:860,32", V6, 860),
        ("[2001:db8::7]", V6, 3260),
        ("2001:db8::7", V6, 3260),
        ("2001:0db8:0:0:0:0:0:7", V6, 3260),
        # Written without brackets by several drivers.
        ("2001:db8::7:3260", V6, 3260),
        ("2001:db8:0:0:0:0:0:7:3261", V6, 3261),
        # Ambiguous, so an address.
        ("2001:db8::7:861", ipaddress.ip_address("2001:db8::7:861"), 3260),
        ("fd00::3260", ipaddress.ip_address("fd00::3260"), 3260),
        ("[::ffff:192.0.2.7]:3260", V4, 3260),
        ("fe80::1%eth0", ipaddress.ip_address("fe80::1%eth0"), 3260),
        ("[fe80::1%bond0.7]:3261", ipaddress.ip_address("fe80::1%bond0.7"), 3261),
        ("192.0.2.7:65535", V4, 65535),
        ("192.0.2.7:1", V4, 1),
    ],
)
def test_spelling(text: str, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    assert Portal.parse(text) == Portal(ip, port)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("192.0.2.7:0", "'0' is not a number between 1 and 65535"),
        ("192.0.2.7:70000", "'70000' is not a number between 1 and 65535"),
        ("192.0.2.7:", "'' is not a number"),
        ("192.0.2.7:+80", "'+80' is not a number"),
        ("192.0.2.7: 80", "' 80' is not a number"),
        ("192.0.2.7:\u0663\u0662", "is not a number"),
        ("192.0.2.7:3260\n", "is not a number"),
        ("[2001:db8::7]:0", "'0' is not a number"),
        ("2001:db8:0:0:0:0:0:7:70000", "'70000' is not a number"),
        ("", "is not a numeric address"),
        ("192.0.2.256:3260", "is not a numeric address"),
        ("192.0.2:3260", "is not a numeric address"),
        ("192.0.2.07:3260", "is not a numeric address"),
        ("192.0.2.7\n:3260", "is not a numeric address"),
        ("[192.0.2.7]:3260", "is not a numeric address"),
        ("[2001:db8::7", "is not a numeric address"),
        ("[2001:db8::7]3260", "is not a numeric address"),
        ("2001:db8::7]:3260", "is not a numeric address"),
        ("[]:3260", "is not a numeric address"),
        ("192.0.2.7:3260,x", "is not a number"),
        ("stor\u00e4ge:3260", "is not a numeric address"),
        ("2001:db8::7%eth0", "only a link-local address"),
        ("fe80::1%eth 0", "remove it"),
        ("::ffff:192.0.2.7%eth0", "only a link-local address"),
    ],
)
def test_refused(text: str, part: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Portal.parse(text)
    message = str(caught.value)
    assert part in message
    assert message.isascii()
    assert message.isprintable()
    assert caught.value.code == Code.INVALID


@pytest.mark.parametrize("name", ["storage", "storage.example.org", "a-1.example.", "10.example"])
def test_host_name_is_refused_in_words(name: str) -> None:
    with pytest.raises(UnsupportedRequestError, match="host name"):
        Portal.parse(f"{name}:3260")


@pytest.mark.parametrize("value", [None, 5, b"192.0.2.7:3260", ["192.0.2.7"]])
def test_wrong_type(value: object) -> None:
    with pytest.raises(InvalidRequestError, match="not a string"):
        Portal.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("port", [0, -1, 65536, pytest.param(10**5000, id="huge")])
def test_constructor_checks_port(port: int) -> None:
    with pytest.raises(InvalidRequestError, match="between 1 and 65535"):
        Portal(V4, port)


def test_constructor_checks_types() -> None:
    with pytest.raises(InvalidRequestError, match=r"use Portal\.parse"):
        Portal("192.0.2.7")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="not an integer"):
        Portal(V4, True)


def test_is_a_value() -> None:
    assert len({Portal.parse("[2001:DB8::7]:3260"), Portal.parse("2001:db8:0::7")}) == 1
    with pytest.raises(AttributeError):
        Portal(V4).port = 1  # type: ignore[misc]
    assert not hasattr(Portal(V4), "__dict__")


@given(
    st.ip_addresses(),
    st.integers(1, 65535),
    st.sampled_from(["", ",1", ",0", ",-1", ",65535"]),
)
def test_text_and_back(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, tag: str
) -> None:
    portal = Portal(ip, port)
    assert Portal.parse(f"{portal}{tag}") == portal


@given(st.ip_addresses())
def test_bare_address(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    portal = Portal.parse(str(ip))
    # The one spelling that is read as address and port.
    if str(ip).endswith(":3260") and portal != Portal(ip):
        assert str(ip) == f"{portal.ip}:3260"
    else:
        assert portal == Portal(ip)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        portal = Portal.parse(text)
    except InvalidRequestError as error:
        message = str(error)
    else:
        assert Portal.parse(str(portal)) == portal
        message = ""
    assert message.isascii()
    assert message == "" or message.isprintable()
