# SPDX-License-Identifier: Apache-2.0
"""CHAP credentials from connection properties.

What iscsid would misread or quietly ignore is refused here, before anything is sent. Messages name
the key, never its value. No function encodes, cuts or formats a password: each of these would leave
another copy of it in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manypath._types import Credentials
from manypath.address import shorten
from manypath.errors import InvalidRequestError, UnsupportedRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    #: Takes what is wrong, what comes of it, and the remedy.
    Warn = Callable[[str, str, str], None]

#: iscsid's fields for names and passwords; it copies longer ones over what lies behind them.
BYTES_LIMIT = 255

ALGORITHMS = ("MD5", "SHA1", "SHA256", "SHA3-256")


def read(data: Mapping[str, Any], prefix: str, warn: Warn) -> Credentials | None:
    """Return the credentials whose keys begin with ``prefix``; None: log in without CHAP."""
    if not _is_wanted(data, prefix):
        _refuse_half_mutual(data, prefix)
        _warn_of_unused(data, prefix, warn)
        return None
    username = _username(data, f"{prefix}username")
    password = _password(data, f"{prefix}password")
    algorithms = _algorithms(data, f"{prefix}algorithms")
    if not any(_is_given(data, f"{prefix}{name}_in") for name in ("username", "password")):
        return Credentials(username, password, algorithms=algorithms)
    username_in = _username(data, f"{prefix}username_in")
    password_in = _password(data, f"{prefix}password_in")
    if _is_same(password, password_in):
        raise _invalid(
            f"{prefix}password_in is the same as {prefix}password, with which the target could "
            "answer its own challenge; give the target a password of its own"
        )
    return Credentials(username, password, username_in, password_in, algorithms)


def _invalid(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, phase="request")


def _is_given(data: Mapping[str, Any], key: str) -> bool:
    return data.get(key) is not None


def _is_wanted(data: Mapping[str, Any], prefix: str) -> bool:
    method = data.get(f"{prefix}method")
    if method is None:
        return False
    if not isinstance(method, str):
        raise _invalid(
            f"{prefix}method is {type(method).__name__}, not a string; use 'CHAP' or 'None'"
        )
    if method.lower() not in ("", "none", "chap"):
        raise UnsupportedRequestError(
            f"{prefix}method {shorten(method)} is not supported; use 'CHAP' or 'None'",
            phase="request",
        )
    return method.lower() == "chap"


def _refuse_half_mutual(data: Mapping[str, Any], prefix: str) -> None:
    # iscsid would log in without any authentication, although the caller wants to be sure of the
    # target.
    for name in ("username_in", "password_in"):
        if _is_filled(data, f"{prefix}{name}"):
            raise _invalid(
                f"{prefix}{name} asks for mutual CHAP, but {prefix}method is not 'CHAP'; set it, "
                f"with {prefix}username and {prefix}password, or remove {prefix}{name}"
            )


def _warn_of_unused(data: Mapping[str, Any], prefix: str, warn: Warn) -> None:
    keys = [f"{prefix}{name}" for name in ("username", "password")]
    unused = " and ".join(key for key in keys if _is_filled(data, key))
    if unused:
        warn(
            f"{unused} given, but {prefix}method is not 'CHAP'",
            "the login is made without CHAP",
            f"set {prefix}method to 'CHAP', or remove {unused}",
        )


def _is_filled(data: Mapping[str, Any], key: str) -> bool:
    return bool(data.get(key))


def _username(data: Mapping[str, Any], key: str) -> str:
    name = _required(data, key)
    if not isinstance(name, str):
        raise _invalid(f"{key} is {type(name).__name__}, not a string; give the user's name")
    _check_size(name, key)
    if "\0" in name:
        raise _invalid(f"{key} has a NUL character, where iscsid would cut it off; remove it")
    return name


def _password(data: Mapping[str, Any], key: str) -> str | bytes:
    password = _required(data, key)
    if not isinstance(password, str | bytes):
        raise _invalid(
            f"{key} is {type(password).__name__}, neither a string nor bytes; give the password"
        )
    _check_size(password, key)
    return password


def _required(data: Mapping[str, Any], key: str) -> Any:
    value = data.get(key)
    if value is None:
        raise _invalid(f"{key} is missing; CHAP needs it: add it to the connection properties")
    return value


def _check_size(value: str | bytes, key: str) -> None:
    if not value:
        raise _invalid(f"{key} is empty; give 1 to {BYTES_LIMIT} bytes")
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        raise _invalid(f"{key} has a lone surrogate, which UTF-8 cannot express; remove it")
    # A long text is not worth counting, and each character has at least one byte.
    if len(value) > BYTES_LIMIT or _byte_count(value) > BYTES_LIMIT:
        raise _invalid(f"{key} has more than {BYTES_LIMIT} bytes in UTF-8; give a shorter one")


def _byte_count(value: str | bytes) -> int:
    if isinstance(value, bytes) or value.isascii():
        return len(value)
    return sum(1 for _ in _bytes_of(value))


def _bytes_of(value: str | bytes) -> Iterator[int]:
    """Yield the bytes of UTF-8 one by one, so that they never lie in memory as a whole."""
    if isinstance(value, bytes):
        yield from value
    else:
        for character in value:
            yield from character.encode()


def _is_same(one: str | bytes, other: str | bytes) -> bool:
    import hmac  # loads OpenSSL, so only for those who need it

    if isinstance(one, bytes) and isinstance(other, bytes):
        return hmac.compare_digest(one, other)
    if isinstance(one, str) and isinstance(other, str):
        ascii_only = one.isascii() and other.isascii()
        return hmac.compare_digest(one, other) if ascii_only else one == other
    # The target sees bytes, whatever type they had here.
    return _byte_count(one) == _byte_count(other) and all(
        left == right for left, right in zip(_bytes_of(one), _bytes_of(other), strict=True)
    )


def _algorithms(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    given = data.get(key)
    if given is None:
        return ALGORITHMS[:1]
    names = given.split(",") if isinstance(given, str) else given
    if isinstance(names, bytes) or not isinstance(names, Sequence):
        raise _invalid(
            f"{key} is {type(given).__name__}, not a list; give some of {', '.join(ALGORITHMS)}"
        )
    found = tuple(_algorithm(name, key) for name in names)
    if not found:
        raise _invalid(f"{key} is empty; remove it, or give some of {', '.join(ALGORITHMS)}")
    if len(set(found)) < len(found):
        raise _invalid(f"{key} {shorten(','.join(found))} names one twice; name each once")
    return found


def _algorithm(name: Any, key: str) -> str:
    for known in ALGORITHMS:
        if isinstance(name, str) and name.strip().upper() == known:
            return known
    shown = shorten(name) if isinstance(name, str) else f"of type {type(name).__name__}"
    raise _invalid(f"{key}: {shown} is not known; give some of {', '.join(ALGORITHMS)}")
