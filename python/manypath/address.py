# SPDX-License-Identifier: Apache-2.0
"""Portals as values: parsed once, compared as addresses, never as strings."""

from __future__ import annotations

import dataclasses
import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from manypath.errors import InvalidRequestError, UnsupportedRequestError

ISCSI_PORT = 3260

# RFC 1123 section 2.1, and the '_' that is met in practice; the same rule as in
# native/src/sendtargets.c, and the dot of the root. The last label is not a number, otherwise
# 10.0.0.256 would be a name.
_HOST_NAME = re.compile(
    r"(?!(?:.*\.)?[0-9]+\.?\Z)[a-z0-9](?:[a-z0-9._-]{0,253}[a-z0-9_-])?\.?\Z",
    re.ASCII | re.IGNORECASE,
)
_INTERFACE = re.compile(r"[!-~]{1,15}\Z", re.ASCII)
_REMEDY = "write it as address:port, such as 192.0.2.1:3260 or [2001:db8::1]:3260"


@dataclasses.dataclass(frozen=True, slots=True)
class Portal:
    """Address and TCP port of an iSCSI portal.

    A v4-mapped IPv6 address becomes the IPv4 address, since it reaches the same portal.
    """

    ip: IPv4Address | IPv6Address
    port: int = ISCSI_PORT

    def __post_init__(self) -> None:
        if not isinstance(self.ip, IPv4Address | IPv6Address):
            raise InvalidRequestError(
                f"portal address {shorten(self.ip)} is not an ipaddress object; "
                "use Portal.parse() for text",
                phase="request",
            )
        _check_port(self.port)
        if isinstance(self.ip, IPv6Address):
            if self.ip.ipv4_mapped is not None and self.ip.scope_id is None:
                object.__setattr__(self, "ip", self.ip.ipv4_mapped)
            elif self.ip.scope_id is not None and not (
                self.ip.is_link_local and _INTERFACE.match(self.ip.scope_id)
            ):
                raise InvalidRequestError(
                    f"address {shorten(str(self.ip))}: only a link-local address takes "
                    "%interface; remove it",
                    phase="request",
                )

    @classmethod
    def parse(cls, text: str) -> Portal:
        """Parse a portal as Cinder's drivers write it.

        ``a.b.c.d:port``, ``[v6]:port``, ``v6:port`` where it cannot be anything else, and each
        without a port, which is 3260 then. A trailing ``,tpgt`` is dropped. Unbracketed IPv6 text
        that ends in ``:3260`` after a complete address has a port there: several drivers forget the
        brackets, while an address whose last group is 3260, given without a port, is not to be
        expected.
        """
        portal = parse_portal(text)
        if isinstance(portal, NamedPortal):
            raise UnsupportedRequestError(
                f"portal {shorten(text)} is a host name, which connect() resolves and "
                "parse_portal() takes; give a numeric address here",
                phase="request",
            )
        return portal

    def __str__(self) -> str:
        if isinstance(self.ip, IPv6Address):
            return f"[{self.ip}]:{self.port}"
        return f"{self.ip}:{self.port}"


@dataclasses.dataclass(frozen=True, slots=True)
class NamedPortal:
    """Host name and TCP port of an iSCSI portal, not resolved.

    Names are compared without case and without the dot of the root.
    """

    host: str
    port: int = ISCSI_PORT

    def __post_init__(self) -> None:
        if not isinstance(self.host, str) or not _HOST_NAME.match(self.host):
            raise InvalidRequestError(
                f"host {shorten(self.host)} is not a host name; use parse_portal() for text",
                phase="request",
            )
        _check_port(self.port)
        object.__setattr__(self, "host", self.host.lower().removesuffix("."))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_portal(text: str) -> Portal | NamedPortal:
    """Parse a portal as :meth:`Portal.parse` does, and also ``name:port`` or a name alone.

    Nothing is resolved.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"portal {shorten(text)} is {type(text).__name__}, not a string; {_REMEDY}",
            phase="request",
        )
    address, port_text = _split(_without_tag(text))
    ip = _ip(address)
    if ip is None and not _HOST_NAME.match(address):
        raise InvalidRequestError(
            f"portal {shorten(text)} is not a numeric address or a host name; {_REMEDY}",
            phase="request",
        )
    if port_text is None:
        port = ISCSI_PORT
    elif _is_digits(port_text, 5) and 1 <= int(port_text) <= 65535:
        port = int(port_text)
    else:
        raise InvalidRequestError(
            f"portal {shorten(text)}: port {shorten(port_text)} is not a number between "
            f"1 and 65535; {_REMEDY}",
            phase="request",
        )
    return NamedPortal(address, port) if ip is None else Portal(ip, port)


def shorten(value: object) -> str:
    """Show a value of the caller in a message: ASCII, one line, no longer than a line."""
    text = ascii(value) if not _is_huge(value) else f"<{value.__class__.__name__} of many digits>"
    return text if len(text) <= 80 else f"{text[:60]}...{text[-8:]}"


def _check_port(port: int) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise InvalidRequestError(f"port {shorten(port)} is not an integer", phase="request")
    if not 1 <= port <= 65535:
        raise InvalidRequestError(
            f"port {shorten(port)} is not between 1 and 65535", phase="request"
        )


def _is_huge(value: object) -> bool:
    # CPython refuses to print integers of more than 4300 digits.
    return isinstance(value, int) and value.bit_length() > 512


def _is_digits(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= most


def _without_tag(text: str) -> str:
    """Drop the portal group tag that open-iscsi prints behind a portal."""
    head, comma, tag = text.rpartition(",")
    return head if comma and _is_digits(tag.removeprefix("-"), 5) else text


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if bracket and not rest:
            return address, None
        if bracket and rest.startswith(":") and ":" in address:
            return address, rest[1:]
        return text, None
    if text.count(":") <= 1:
        address, colon, port = text.partition(":")
        return address, port if colon else None
    address, _, port = text.rpartition(":")
    has_port = _ip(address) is not None and (port == str(ISCSI_PORT) or _ip(text) is None)
    return (address, port) if has_port else (text, None)


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
