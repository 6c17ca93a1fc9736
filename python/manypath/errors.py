# SPDX-License-Identifier: Apache-2.0
"""What can go wrong: one class per cause, all of them a :class:`ManypathError`."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from manypath._types import Detachment, Path
    from manypath.address import Portal


class Code(enum.IntEnum):
    """The library's error codes; ``enum manypath_code`` of the C header."""

    INVALID = -5001
    PERMISSION = -5002
    ISCSID_DOWN = -5003
    ISCSID_UNTRUSTED = -5004
    ISCSID_LAYOUT = -5005
    ISCSID_PROTOCOL = -5006
    REFUSED = -5007
    NO_ANSWER = -5008
    LOGIN_REJECTED = -5009
    AUTH = -5010
    LOGIN = -5011
    SESSION = -5012
    LUN_NOT_FOUND = -5013
    DEVICE = -5014
    IDENTITY = -5015
    IN_USE = -5016
    FLUSH = -5017
    NO_MULTIPATH = -5018
    MAP = -5019
    LOGOUT = -5020
    TIMEOUT = -5021
    CANCELLED = -5022
    FORKED = -5023
    SYSTEM = -5024
    PROTOCOL = -5025
    HOST_NAME = -5026


class ManypathError(Exception):
    """An operation, or one of its paths, failed.

    ``phase`` says where the operation was, ``errno`` and ``iscsid_code`` are the answers of the
    kernel and of iscsid where there was one, ``portal`` is the portal concerned, ``retryable`` is
    true if the same call may succeed later without changing anything, and ``paths`` holds the state
    of each path when an attach failed. ``detachment`` is what a detach with force did all the same;
    its ``errors`` are all that went wrong, this one first.
    """

    default_code: ClassVar[Code] = Code.SYSTEM

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        phase: str = "none",
        errno: int | None = None,
        iscsid_code: int | None = None,
        portal: Portal | None = None,
        retryable: bool = False,
        paths: tuple[Path, ...] = (),
        detachment: Detachment | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.default_code if code is None else code
        self.phase = phase
        self.errno = errno
        self.iscsid_code = iscsid_code
        self.portal = portal
        self.retryable = retryable
        self.paths = paths
        self.detachment = detachment

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # The keyword arguments are attributes, so copy and pickle restore them from the state.
        return type(self), (self.message,), self._fields()

    def _fields(self) -> dict[str, Any]:
        names = (
            "code",
            "phase",
            "errno",
            "iscsid_code",
            "portal",
            "retryable",
            "paths",
            "detachment",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def code_name(self) -> str:
        """Short stable name of the code, such as ``LUN_NOT_FOUND``."""
        try:
            return Code(self.code).name
        except ValueError:
            return "UNKNOWN"

    def as_dict(self) -> dict[str, Any]:
        """Return the error as values that :mod:`json` can write."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            **self._fields(),
            "code": int(self.code),
            "code_name": self.code_name,
            "portal": None if self.portal is None else str(self.portal),
            "paths": [path.as_dict() for path in self.paths],
            "detachment": None if self.detachment is None else self.detachment.as_dict(),
        }


class InvalidRequestError(ManypathError, ValueError):
    """A value of the request is not acceptable; the message names it and says what would be."""

    default_code = Code.INVALID


class UnsupportedRequestError(InvalidRequestError):
    """The request asks for something that this version does not do."""


class PermissionDeniedError(ManypathError, PermissionError):
    """Not root, or a capability is missing."""

    default_code = Code.PERMISSION


class IscsidError(ManypathError):
    """iscsid cannot be used."""


class IscsidDownError(IscsidError):
    """Nobody listens on iscsid's socket."""

    default_code = Code.ISCSID_DOWN


class IscsidUntrustedError(IscsidError):
    """The owner of iscsid's socket is not root."""

    default_code = Code.ISCSID_UNTRUSTED


class IscsidLayoutError(IscsidError):
    """The layout of this iscsid's requests is not known, so nothing was sent to it."""

    default_code = Code.ISCSID_LAYOUT


class IscsidProtocolError(IscsidError):
    """iscsid broke off, or answered nonsense."""

    default_code = Code.ISCSID_PROTOCOL


class PortalError(ManypathError):
    """A portal cannot be reached."""


class PortalRefusedError(PortalError):
    """The portal refused the connection, or there is no way to it."""

    default_code = Code.REFUSED


class PortalNoAnswerError(PortalError):
    """The portal does not answer."""

    default_code = Code.NO_ANSWER


class LoginError(ManypathError):
    """A login failed; see ``iscsid_code``."""

    default_code = Code.LOGIN


class LoginRejectedError(LoginError):
    """The target rejected the login."""

    default_code = Code.LOGIN_REJECTED


class AuthenticationError(LoginError):
    """The target and we did not agree on who we are."""

    default_code = Code.AUTH


class SessionError(ManypathError):
    """The session vanished, or is not logged in."""

    default_code = Code.SESSION


class LunNotFoundError(ManypathError):
    """The target does not offer this LUN to us."""

    default_code = Code.LUN_NOT_FOUND


class DeviceError(ManypathError):
    """The SCSI device did not appear, or cannot be read."""

    default_code = Code.DEVICE


class IdentityError(ManypathError):
    """Paths are not the same disk, or cannot be identified."""

    default_code = Code.IDENTITY


class InUseError(ManypathError):
    """Somebody holds the map or a path."""

    default_code = Code.IN_USE


class FlushError(ManypathError):
    """Cached data could not be written back; without force nothing was removed."""

    default_code = Code.FLUSH


class MapError(ManypathError):
    """A device-mapper call failed."""

    default_code = Code.MAP


class MultipathUnavailableError(ManypathError):
    """The kernel has no device-mapper, or no multipath target."""

    default_code = Code.NO_MULTIPATH


class LogoutError(ManypathError):
    """A session could not be logged out."""

    default_code = Code.LOGOUT


class OperationTimeoutError(ManypathError, TimeoutError):
    """The timeout of the operation passed."""

    default_code = Code.TIMEOUT


class OperationCancelledError(ManypathError):
    """The operation was cancelled, and what it had made was undone."""

    default_code = Code.CANCELLED


class ForkedError(ManypathError):
    """The handle belongs to the parent process."""

    default_code = Code.FORKED


class TargetProtocolError(ManypathError):
    """The target broke the iSCSI protocol, or one of our limits."""

    default_code = Code.PROTOCOL


class HostNameError(ManypathError):
    """A host name cannot be resolved."""

    default_code = Code.HOST_NAME


class SystemCallError(ManypathError):
    """A system call failed; see ``errno``."""

    default_code = Code.SYSTEM


#: The class raised for each code.
CLASS_BY_CODE: Mapping[int, type[ManypathError]] = {
    error_class.default_code: error_class
    for error_class in (
        InvalidRequestError,
        PermissionDeniedError,
        IscsidDownError,
        IscsidUntrustedError,
        IscsidLayoutError,
        IscsidProtocolError,
        PortalRefusedError,
        PortalNoAnswerError,
        LoginRejectedError,
        AuthenticationError,
        LoginError,
        SessionError,
        LunNotFoundError,
        DeviceError,
        IdentityError,
        InUseError,
        FlushError,
        MultipathUnavailableError,
        MapError,
        LogoutError,
        OperationTimeoutError,
        OperationCancelledError,
        ForkedError,
        SystemCallError,
        TargetProtocolError,
        HostNameError,
    )
}
