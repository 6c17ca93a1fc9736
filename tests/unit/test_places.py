# SPDX-License-Identifier: Apache-2.0
"""From plan to targets: discovery, host names, sessions that are there. Issue: the spec's legacy
rule: "Then the connector must send discovery query to the returned portal in order to find the
multipath portals and targets, like the existing design."
"""

from __future__ import annotations

from typing import Any

import pytest

import manypath
from fake_core import FakeHandle
from manypath import DiscoveredTarget, Inventory, NamedPortal, Portal, Session, Target
from manypath.errors import (
    AuthenticationError,
    HostNameError,
    InvalidRequestError,
    ManypathError,
    PortalNoAnswerError,
    PortalRefusedError,
    SessionError,
)

IQN = "iqn.2010-10.org.example:1"
OTHER = "iqn.2010-10.org.example:2"
SINGLES = {"target_portal": "192.0.2.1:3260", "target_iqn": IQN, "target_lun": 1}
NAMED = {
    "target_portals": ["a.example:3260", "b.example:3261"],
    "target_iqns": [IQN],
    "target_lun": 1,
}


def portal(number: int) -> Portal:
    return Portal.parse(f"192.0.2.{number}")


def offer(iqn: str, *numbers: int) -> tuple[DiscoveredTarget, ...]:
    return tuple(DiscoveredTarget(iqn, portal(number), 1) for number in numbers)


def session(iqn: str, number: int) -> Session:
    return Session(number, number, iqn, portal(number), "LOGGED_IN")


def away(error: type[ManypathError] = PortalNoAnswerError) -> ManypathError:
    return error("the portal is away", retryable=True)


def attached(handle: FakeHandle) -> list[tuple[str, str, int]]:
    """Portal, iqn and LUN of the last attach, detach or extend."""
    names = ("attach", "detach", "extend")
    targets = next(call[1] for call in reversed(handle.calls) if call[0] in names)
    return [(str(target.portal), target.iqn, target.lun) for target in targets]


def candidates(handle: FakeHandle) -> list[tuple[str, str]]:
    return [(str(target.portal), target.iqn) for target in handle.options["candidates"]]


# --- discovery ------------------------------------------------------------------------------------


def test_the_target_on_all_its_portals(handle: FakeHandle) -> None:
    """Targets of other volumes on the same portals are left alone."""
    handle.offers["192.0.2.1:3260"] = offer(IQN, 1, 2, 3, 4) + offer(OTHER, 1, 2, 3, 4)
    manypath.connect(SINGLES)
    assert attached(handle) == [(f"192.0.2.{i}:3260", IQN, 1) for i in (1, 2, 3, 4)]
    assert candidates(handle) == []


def test_a_target_for_each_portal(handle: FakeHandle) -> None:
    """If the IQN is not on every portal, what the others offer is tried: identity decides."""
    handle.offers["192.0.2.1:3260"] = (
        offer(IQN, 1) + offer(f"{IQN}-2", 2) + offer(f"{IQN}-3", 3) + offer(OTHER, 1)
    )
    manypath.connect(SINGLES)
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1)]
    assert candidates(handle) == [("192.0.2.2:3260", f"{IQN}-2"), ("192.0.2.3:3260", f"{IQN}-3")]


def test_lists_need_no_discovery(handle: FakeHandle) -> None:
    """Spec: "Since nova-compute can omit discovery query to find multiple portals and targets, this
    change may make volume-attach/detach operations faster."
    """
    lists = {"target_portals": ["192.0.2.1:3260"], "target_iqns": [IQN], "target_luns": [1]}
    manypath.connect(lists)
    assert [call[0] for call in handle.calls] == ["attach"]


def test_the_target_is_not_offered(handle: FakeHandle) -> None:
    """Some arrays list by access: the login tells more than we could."""
    handle.offers["192.0.2.1:3260"] = offer(OTHER, 1, 2)
    attachment = manypath.connect(SINGLES)
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1)]
    assert candidates(handle) == []
    assert "does not offer" in attachment.warnings[0]


def test_the_next_portal_is_asked(handle: FakeHandle) -> None:
    properties = {**SINGLES, "target_portals": ["192.0.2.1", "192.0.2.2"]}
    handle.offers["192.0.2.1:3260"] = away(PortalRefusedError)
    handle.offers["192.0.2.2:3260"] = offer(IQN, 1, 2)
    manypath.connect(properties)
    assert len(attached(handle)) == 2


def test_wrong_credentials_are_told_at_once(handle: FakeHandle) -> None:
    properties = {**SINGLES, "target_portals": ["192.0.2.1", "192.0.2.2"]}
    handle.offers["192.0.2.1:3260"] = AuthenticationError("who are you?")
    handle.host = Inventory((session(IQN, 2),), (), (), maps_known=True)
    with pytest.raises(AuthenticationError):
        manypath.connect(properties)
    assert [call[0] for call in handle.calls] == ["discover"]


@pytest.mark.parametrize("error", [PortalNoAnswerError, PortalRefusedError, HostNameError])
def test_a_dead_portal_and_sessions(handle: FakeHandle, error: type[ManypathError]) -> None:
    """If the portal named is dead but sessions to the target exist, those are used."""
    handle.offers["192.0.2.1:3260"] = away(error)
    sessions = (session(IQN, 2), session(OTHER, 3), session(IQN, 4))
    handle.host = Inventory(sessions, (), (), maps_known=True)
    attachment = manypath.connect(SINGLES)
    assert attached(handle) == [("192.0.2.2:3260", IQN, 1), ("192.0.2.4:3260", IQN, 1)]
    assert "sessions that exist" in attachment.warnings[0]


def test_a_dead_portal_without_sessions(handle: FakeHandle) -> None:
    handle.offers["192.0.2.1:3260"] = away()
    with pytest.raises(PortalNoAnswerError):
        manypath.connect(SINGLES)


def test_discovery_leaves_time_for_the_attach(handle: FakeHandle) -> None:
    handle.offers["192.0.2.1:3260"] = offer(IQN, 1)
    manypath.connect(SINGLES, timeout=10)
    discover, attach = handle.calls
    assert discover[2] <= 5000
    assert 9000 < attach[2] <= 10000


def test_discovery_credentials(handle: FakeHandle) -> None:
    """Those of the session are not sent to a portal that asks for none."""
    chap = {"auth_method": "CHAP", "auth_username": "user", "auth_password": "secret"}
    handle.offers["192.0.2.1:3260"] = offer(IQN, 1)
    manypath.connect({**SINGLES, **chap})
    assert handle.options["chap"].username == "user"
    manypath.discover("192.0.2.1")
    assert handle.options == {"initiator": None, "chap": None}


@pytest.mark.parametrize("names", [(), (IQN, OTHER)])
def test_no_name_is_given(handle: FakeHandle, names: tuple[str, ...]) -> None:
    """Among several targets nobody can say which is the volume's."""
    properties = {"target_portal": "192.0.2.1", "target_lun": 1}
    handle.offers["192.0.2.1:3260"] = tuple(target for name in names for target in offer(name, 1))
    with pytest.raises(InvalidRequestError, match=f"offers {len(names)} targets.*add target_iqn"):
        manypath.connect(properties)


def test_no_name_is_given_and_one_offered(handle: FakeHandle) -> None:
    handle.offers["192.0.2.1:3260"] = offer(IQN, 1, 2)
    manypath.connect({"target_portal": "192.0.2.1", "target_lun": 1})
    assert len(attached(handle)) == 2
    manypath.disconnect({"target_portal": "192.0.2.1", "target_lun": 1})
    assert handle.options == {"whole_map": True, "force": False}
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1)]


# --- detaching what was discovered ----------------------------------------------------------------


def test_detach_asks_no_portal(handle: FakeHandle) -> None:
    """The host's sessions tell, and a stale discovery record nothing."""
    sessions = (session(IQN, 1), session(IQN, 2), session(OTHER, 1), session(OTHER, 2))
    handle.host = Inventory(sessions, (), (), maps_known=True)
    manypath.disconnect(SINGLES)
    assert [call[0] for call in handle.calls] == ["inventory", "detach"]
    assert set(attached(handle)) == {("192.0.2.1:3260", IQN, 1), ("192.0.2.2:3260", IQN, 1)}
    assert handle.options == {"whole_map": True, "force": False}


def test_detach_of_lists_is_about_them_alone(handle: FakeHandle) -> None:
    manypath.disconnect({**SINGLES, "target_portals": ["192.0.2.9"], "target_iqns": [IQN]})
    assert attached(handle) == [("192.0.2.9:3260", IQN, 1)]
    assert handle.options == {"whole_map": False, "force": False}


def test_detach_needs_no_credentials(handle: FakeHandle) -> None:
    manypath.disconnect({**SINGLES, "auth_method": "CHAP"})


def test_extend_asks_no_portal(handle: FakeHandle) -> None:
    """As detach: one session is enough, the others are in the map."""
    handle.host = Inventory((session(IQN, 2), session(OTHER, 1)), (), (), maps_known=True)
    manypath.extend({**SINGLES, "auth_method": "CHAP"})
    assert [call[0] for call in handle.calls] == ["inventory", "extend"]
    assert set(attached(handle)) == {("192.0.2.1:3260", IQN, 1), ("192.0.2.2:3260", IQN, 1)}


# --- single path ----------------------------------------------------------------------------------


def test_single_path(handle: FakeHandle) -> None:
    lists = {"target_portals": ["192.0.2.1", "192.0.2.2"], "target_iqns": [IQN], "target_lun": 1}
    assert manypath.connect(lists, multipath=False).path == "/dev/sda"
    assert handle.options["single_path"] is True
    with pytest.raises(InvalidRequestError, match="above 1"):
        manypath.connect(lists, multipath=False, min_paths=2)


def test_single_path_with_singles_needs_no_discovery(handle: FakeHandle) -> None:
    manypath.connect(SINGLES, multipath=False)
    assert [call[0] for call in handle.calls] == ["attach"]


# --- host names -----------------------------------------------------------------------------------


def test_names_are_resolved(handle: FakeHandle) -> None:
    handle.names = {"a.example": ("192.0.2.1", "192.0.2.11"), "b.example": ("2001:db8::1",)}
    manypath.connect(NAMED)
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1), ("[2001:db8::1]:3261", IQN, 1)]


def test_a_name_that_cannot_be_resolved_is_left_out(handle: FakeHandle) -> None:
    handle.names = {"b.example": ("192.0.2.2",)}
    attachment = manypath.connect(NAMED)
    assert attached(handle) == [("192.0.2.2:3261", IQN, 1)]
    assert "a.example" in attachment.warnings[0]


def test_no_name_can_be_resolved(handle: FakeHandle) -> None:
    with pytest.raises(HostNameError, match=r"a\.example"):
        manypath.connect(NAMED)


def test_detach_takes_every_address_of_a_name(handle: FakeHandle) -> None:
    """A name server may turn them round between attach and detach."""
    handle.names = {"a.example": ("192.0.2.11", "192.0.2.1"), "b.example": ("192.0.2.2",)}
    manypath.disconnect(NAMED)
    assert {item[0] for item in attached(handle)} == {
        "192.0.2.11:3260",
        "192.0.2.1:3260",
        "192.0.2.2:3261",
    }


def test_detach_without_a_name_server(handle: FakeHandle) -> None:
    """The sessions of the target are the host's own knowledge."""
    handle.host = Inventory((session(IQN, 1), session(OTHER, 2)), (), (), maps_known=True)
    manypath.disconnect(NAMED)
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1)]


def test_detach_of_what_nobody_knows(handle: FakeHandle) -> None:
    """No name server and no session: it is not connected, and disconnecting that succeeds."""
    assert not manypath.disconnect(NAMED).map_removed
    assert "detach" not in [call[0] for call in handle.calls]


def test_extend_without_a_name_server(handle: FakeHandle) -> None:
    handle.host = Inventory((session(IQN, 1), session(OTHER, 2)), (), (), maps_known=True)
    manypath.extend(NAMED)
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1)]
    handle.host = Inventory((), (), (), maps_known=True)
    with pytest.raises(SessionError, match="not attached"):
        manypath.extend(NAMED)


def test_a_portal_that_is_offered_by_name(handle: FakeHandle) -> None:
    handle.names = {"a.example": ("192.0.2.7",)}
    named = DiscoveredTarget(IQN, NamedPortal("a.example", 3262), 2)
    lost = DiscoveredTarget(IQN, NamedPortal("lost.example", 3262), 2)
    handle.offers["192.0.2.1:3260"] = (*offer(IQN, 1), named, lost)
    attachment = manypath.connect(SINGLES)
    assert attached(handle) == [("192.0.2.1:3260", IQN, 1), ("192.0.2.7:3262", IQN, 1)]
    assert "lost.example" in attachment.warnings[0]


# --- discover() -----------------------------------------------------------------------------------


def test_discover(handle: FakeHandle) -> None:
    handle.offers["192.0.2.1:3260"] = offer(IQN, 1)
    found = manypath.discover("192.0.2.1", initiator="iqn.2010-10.org.example:us")
    assert (found.portal, found.targets) == (portal(1), offer(IQN, 1))
    assert handle.options["initiator"] == "iqn.2010-10.org.example:us"


def test_discover_tries_each_address_of_a_name(handle: FakeHandle) -> None:
    handle.names = {"a.example": ("2001:db8::1", "192.0.2.1")}
    handle.offers = {"[2001:db8::1]:3260": away(), "192.0.2.1:3260": offer(IQN, 1)}
    assert manypath.discover(NamedPortal("a.example")).portal == portal(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"portal": 5}, "5 is no portal"),
        ({"portal": "a b"}, "not a numeric address or a host name"),
        ({"portal": "192.0.2.1", "timeout": 0}, "timeout 0"),
        ({"portal": "192.0.2.1", "initiator": "me"}, "initiator: 'me' is not an iSCSI name"),
    ],
)
def test_discover_nonsense(handle: FakeHandle, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        manypath.discover(**arguments)
    assert not handle.calls


def test_a_target_is_a_value() -> None:
    assert Target(portal(1), IQN, 1) == Target(Portal.parse("192.0.2.1:3260"), IQN, 1)
