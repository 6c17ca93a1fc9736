# SPDX-License-Identifier: Apache-2.0
"""Portals: the spellings of drivers, and what is refused."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manypath import NamedPortal, Portal
from manypath.address import parse_portal
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
    with pytest.raises(UnsupportedRequestError, match=r"host name.*parse_portal\(\)"):
        Portal.parse(f"{name}:3260")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("storage", "storage", 3260),
        ("storage:3261", "storage", 3261),
        ("storage:3260,1", "storage", 3260),
        ("storage,-1", "storage", 3260),
        ("Storage.Example.ORG:3260", "storage.example.org", 3260),
        ("a-1.example.:860", "a-1.example", 860),
        ("10.example", "10.example", 3260),
        ("san_1.example:860", "san_1.example", 860),
        ("a" * 255, "a" * 255, 3260),
        ("xn--strage-yua.example", "xn--strage-yua.example", 3260),
    ],
)
def test_host_name(text: str, host: str, port: int) -> None:
    portal = parse_portal(text)
    assert isinstance(portal, NamedPortal)
    assert (portal.host, portal.port) == (host, port)
    assert str(portal) == f"{host}:{port}"
    assert parse_portal(str(portal)) == portal


def test_parse_portal_takes_addresses() -> None:
    assert parse_portal("192.0.2.7:3261,1") == Portal(V4, 3261)
    assert parse_portal("2001:db8::7:3260") == Portal(V6)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("storage:0", "'0' is not a number between 1 and 65535"),
        ("storage:", "'' is not a number"),
        ("storage:3260:1", "is not a numeric address or a host name"),
        ("[storage]:3260", "is not a numeric address or a host name"),
        ("_storage", "is not a numeric address or a host name"),
        ("storage.7", "is not a numeric address or a host name"),
        ("storage.7.", "is not a numeric address or a host name"),
        ("-storage", "is not a numeric address or a host name"),
        ("storage..", "is not a numeric address or a host name"),
        ("a" * 256, "is not a numeric address or a host name"),
        (".", "is not a numeric address or a host name"),
    ],
)
def test_host_name_is_refused(text: str, part: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_portal(text)
    assert part in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "a b", "", "a:1", None, 5, b"a"])
def test_named_portal_checks_host(host: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"use parse_portal\(\)"):
        NamedPortal(host)


@pytest.mark.parametrize("port", [0, 65536, True, "3260"])
def test_named_portal_checks_port(port: Any) -> None:
    with pytest.raises(InvalidRequestError, match="port"):
        NamedPortal("a", port)


def test_named_portal_is_a_value() -> None:
    assert len({NamedPortal("A.example."), NamedPortal("a.example", 3260)}) == 1
    assert NamedPortal("a.example") != NamedPortal("a.example", 860)
    with pytest.raises(AttributeError):
        NamedPortal("a").port = 1  # type: ignore[misc]
    assert not hasattr(NamedPortal("a"), "__dict__")


@pytest.mark.parametrize("value", [None, 5, b"192.0.2.7:3260", ["192.0.2.7"]])
def test_wrong_type(value: Any) -> None:
    for parse in (Portal.parse, parse_portal):
        with pytest.raises(InvalidRequestError, match="not a string"):
            parse(value)


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


@given(st.text() | st.from_regex(r"[a-z0-9.:\[\],-]*", fullmatch=True))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (Portal.parse, parse_portal):
        try:
            portal = parse(text)
        except InvalidRequestError as error:
            message = str(error)
        else:
            assert parse(str(portal)) == portal
            message = ""
        assert message.isascii()
        assert message == "" or message.isprintable()
