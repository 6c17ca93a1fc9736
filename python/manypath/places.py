# SPDX-License-Identifier: Apache-2.0
"""From a plan to the targets of an operation: host names, discovery, sessions that exist."""

from __future__ import annotations

import dataclasses
import math
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

from manypath._types import Discovered, Target
from manypath.address import NamedPortal, Portal
from manypath.errors import HostNameError, InvalidRequestError, ManypathError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from manypath._core import Handle
    from manypath._types import Credentials, DiscoveredTarget, Discovery, Plan

#: A portal that is silent leaves the rest of the time to others; iscsiadm's login timeout.
DISCOVERY_LIMIT = 15.0


class Deadline:
    """The time that is left of a call which consists of several operations."""

    __slots__ = ("_at",)

    def __init__(self, milliseconds: int) -> None:
        self._at = time.monotonic() + milliseconds / 1000

    def left(self) -> float:
        """Seconds, perhaps none."""
        return max(0.0, self._at - time.monotonic())

    def milliseconds(self, limit: float | None = None) -> int:
        """Return what an operation may take now, at most ``limit`` seconds.

        Never 0: an operation that comes too late says so itself.
        """
        left = self.left() if limit is None else min(self.left(), limit)
        return max(1, math.ceil(left * 1000))


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where the volume is, and where it may be."""

    targets: tuple[Target, ...]
    candidates: tuple[Target, ...] = ()  #: perhaps another volume: their identity decides
    warnings: tuple[str, ...] = ()


def to_attach(handle: Handle, plan: Plan, deadline: Deadline) -> Places:
    """Return where to attach; discovers if the plan says so."""
    if plan.discovery is None:
        warnings: list[str] = []
        targets = tuple(_reachable(handle, plan.targets, deadline, warnings))
        if not targets:
            raise HostNameError(warnings[0], phase="resolve", retryable=True)
        return Places(targets, (), tuple(warnings))
    try:
        found = _discover(handle, plan.discovery.portals, deadline, plan.discovery_chap)
    except ManypathError as error:
        if not error.retryable:
            raise
        existing = _sessions(handle, plan.discovery.iqn, plan.discovery.lun)
        if not existing:
            raise
        return Places(existing, (), (f"{error}; the sessions that exist are used",))
    return _choose(handle, found, plan.discovery, deadline)


def to_detach(handle: Handle, plan: Plan, deadline: Deadline) -> Places:
    """Return where to detach or extend.

    The host's own sessions tell; no portal has to be alive for that.
    """
    if plan.discovery is not None:
        iqn = plan.discovery.iqn or _only_name(handle, plan, deadline)
        return Places(_known(plan.discovery, iqn) + _sessions(handle, iqn, plan.discovery.lun))
    targets: list[Target] = []
    for target in plan.targets:
        try:
            portals = _portals(handle, target.portal, deadline)
        except HostNameError:
            targets += _sessions(handle, target.iqn, target.lun)
        else:
            # Which of its addresses was used is not known: a name server may turn them round.
            targets += (Target(portal, target.iqn, target.lun) for portal in portals)
    return Places(tuple(dict.fromkeys(targets)))


def discover(
    handle: Handle,
    portal: Portal | NamedPortal,
    deadline: Deadline,
    chap: Credentials | None = None,
    initiator: str | None = None,
) -> Discovered:
    """Ask one portal; of a host name that has several addresses, each until one answers."""
    return _discover(handle, [portal], deadline, chap, initiator)


def _discover(
    handle: Handle,
    portals: Sequence[Portal | NamedPortal],
    deadline: Deadline,
    chap: Credentials | None,
    initiator: str | None = None,
) -> Discovered:
    first_error: ManypathError | None = None
    for left, portal in zip(range(len(portals), 0, -1), portals, strict=True):
        try:
            for address in _portals(handle, portal, deadline):
                limit = min(DISCOVERY_LIMIT, deadline.left() / (left + 1))
                try:
                    targets = handle.discover(
                        address, deadline.milliseconds(limit), initiator=initiator, chap=chap
                    )
                except ManypathError as error:
                    if not error.retryable:
                        raise  # another portal of the array would not say otherwise
                    first_error = first_error or error
                else:
                    return Discovered(address, targets)
        except HostNameError as error:
            first_error = first_error or error
    assert first_error is not None, "a plan names at least one portal"
    raise first_error


def _choose(handle: Handle, found: Discovered, discovery: Discovery, deadline: Deadline) -> Places:
    """Of what a portal told, the volume's target; where that is not offered, the others perhaps."""
    iqn = discovery.iqn or _single_name(found)
    mine = [target for target in found.targets if target.iqn == iqn]
    if not mine:
        warning = f"portal {found.portal} does not offer {iqn}; only this portal is tried"
        return Places((Target(found.portal, iqn, discovery.lun),), (), (warning,))
    offering = {target.portal for target in mine}
    others = [target for target in found.targets if target.portal not in offering]
    warnings: list[str] = []

    def places(chosen: Iterable[DiscoveredTarget]) -> tuple[Target, ...]:
        named = [Target(target.portal, target.iqn, discovery.lun) for target in chosen]
        return tuple(_reachable(handle, named, deadline, warnings))

    targets = places(mine)
    if not targets:
        raise HostNameError(warnings[0], phase="resolve", retryable=True)
    return Places(targets, places(others), tuple(warnings))


def _reachable(
    handle: Handle, targets: Iterable[Target], deadline: Deadline, warnings: list[str]
) -> Iterator[Target]:
    """Yield the targets with numeric portals; of a name's addresses the one to be preferred."""
    for target in targets:
        try:
            portal = _portals(handle, target.portal, deadline)[0]
        except HostNameError as error:
            warnings.append(f"{error}; the portal is left out")
        else:
            yield Target(portal, target.iqn, target.lun)


def _portals(
    handle: Handle, portal: Portal | NamedPortal, deadline: Deadline
) -> tuple[Portal, ...]:
    if isinstance(portal, Portal):
        return (portal,)
    addresses = handle.resolve(portal.host, deadline.milliseconds())
    return tuple(Portal(ip_address(address), portal.port) for address in addresses)


def _sessions(handle: Handle, iqn: str | None, lun: int) -> tuple[Target, ...]:
    return tuple(
        Target(session.portal, session.iqn, lun)
        for session in handle.inventory().sessions
        if session.iqn == iqn and session.portal is not None
    )


def _known(discovery: Discovery, iqn: str) -> tuple[Target, ...]:
    """Return the targets that the caller named: a login to them may still be on its way."""
    return tuple(
        Target(portal, iqn, discovery.lun)
        for portal in discovery.portals
        if isinstance(portal, Portal)
    )


def _only_name(handle: Handle, plan: Plan, deadline: Deadline) -> str:
    assert plan.discovery is not None
    portals = plan.discovery.portals
    return _single_name(_discover(handle, portals, deadline, plan.discovery_chap))


def _single_name(found: Discovered) -> str:
    names = {target.iqn for target in found.targets}
    if len(names) != 1:
        raise InvalidRequestError(
            f"portal {found.portal} offers {len(names)} targets and the connection properties name "
            "none of them; add target_iqn",
            phase="discovery",
        )
    return names.pop()
