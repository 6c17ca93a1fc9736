"""The specification (enhance-iscsi-multipath) from the host's side, through the sample backend.

connector -> initialize_connection -> connect -> I/O -> disconnect -> terminate_connection. A
docstring that begins with "Spec:" quotes the sentence the test checks, word by word.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

import manypath
from backend import SampleBackend, SampleVolume
from lab import Chap, Iscsid, Lab, Multipathd, Portal, Session, wait_until
from lab.blockdev import device_path, pattern, read_direct, write_direct
from lab.iscsiadm import DATABASES, iscsiadm, login
from lab.sniffer import Sniffer
from manypath import PathState, errors

HOST_IP = "10.99.1.1"  # the guest has no default route that would tell it
TIMEOUT = 60.0
HEAL = 60.0  # seconds for a session to come up and its path to join the map
REFUSAL = 15.0  # seconds for wrong credentials; left alone, iscsid tries for 120
MIB = 1 << 20

TARGETS = pytest.mark.parametrize("targets", ["shared", "per_portal"])
HOW = pytest.mark.parametrize("how", ["reject", "drop"])

Make = Callable[..., SampleBackend]
Note = Callable[[str, object], None]


def ask(
    backend: SampleBackend, volume: SampleVolume, multipath: bool | None = True
) -> dict[str, Any]:
    """Connection properties for this host's own connector; None leaves the key out."""
    connector = manypath.connector_properties(multipath=bool(multipath), ip=HOST_IP)
    if multipath is None:
        connector.pop("multipath", None)
    return backend.initialize_connection(volume, connector)["data"]


def hang_up(backend: SampleBackend, volume: SampleVolume) -> None:
    connector = manypath.connector_properties(multipath=True, ip=HOST_IP)
    backend.terminate_connection(volume, connector)
    assert volume.initiators == []


def attach(data: dict[str, Any], **options: Any) -> manypath.Attachment:
    """Attach with every path usable, or fail with the reason of those that are not."""
    attachment = manypath.connect(data, **{"timeout": TIMEOUT, **options})
    unusable = [str(path.error) for path in attachment.paths if path.state is not PathState.ACTIVE]
    assert unusable == []
    return attachment


def detach(data: dict[str, Any], **options: Any) -> manypath.Detachment:
    return manypath.disconnect(data, **{"timeout": TIMEOUT, **options})


def refused(
    data: dict[str, Any], kind: type[errors.ManypathError], note: Note, **options: Any
) -> errors.ManypathError:
    """Attach must fail in this way, soon, without telling a secret."""
    begun = time.monotonic()
    with pytest.raises(kind) as caught:
        manypath.connect(data, timeout=TIMEOUT, **options)
    took = time.monotonic() - begun
    note("seconds to the error", round(took, 3))
    print(f"{type(caught.value).__name__} after {took:.2f} s: {caught.value}")
    assert took < REFUSAL
    told = repr(caught.value) + str(caught.value) + repr(caught.value.as_dict())
    assert not [key for key in data if "password" in key and data[key] in told]
    return caught.value


def assert_nothing_left(lab: Lab) -> None:
    state = lab.snapshot()
    assert (state.sessions, state.devices, state.maps) == ((), (), ())


def logged_in(lab: Lab) -> set[tuple[str, str]]:
    """Address and target of each session."""
    return {(session.address, session.iqn) for session in lab.snapshot().sessions}


def offered(volume: SampleVolume) -> set[tuple[str, str]]:
    """Address and target of each place where the backend serves the volume."""
    return {(p.address, place.iqn) for place in volume.places for p in place.portals}


def triples(attachment: manypath.Attachment) -> list[tuple[str, str, int]]:
    return [(str(path.portal), path.iqn, path.lun) for path in attachment.paths]


def write_and_compare(attachment: manypath.Attachment) -> None:
    """Written through the volume's device, read back through each disk."""
    data = pattern(f"{attachment.wwid} {time.monotonic()}", MIB)
    write_direct(attachment.path, data, offset=MIB)
    for path in attachment.paths:
        if path.state is PathState.ACTIVE:
            assert read_direct(device_path(path.device), offset=MIB, length=MIB) == data


def map_members(lab: Lab) -> tuple[str, ...]:
    (dm,) = lab.snapshot().maps
    return dm.members


# --- lists --------------------------------------------------------------------------------------


def test_the_example(lab: Lab, iscsid: Iscsid, multipathd: Multipathd, sample: Make) -> None:
    """Spec: In this case, "iqn.2014-2.org.example:vol1-1", lun=1 is for portal "10.0.1.2:3260", and
    "iqn.2014-2.org.example:vol1-2", lun=2 is for portal "10.0.2.2:3260".
    """
    portals = [lab.portal_at("10.0.1.2"), lab.portal_at("10.0.2.2")]
    prefix = "iqn.2014-2.org.example:"
    backend = sample(portals, targets="per_portal", luns=[1, 2], iqn_prefix=prefix)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    assert data["target_portals"] == ["10.0.1.2:3260", "10.0.2.2:3260"]
    assert data["target_iqns"] == ["iqn.2014-2.org.example:vol1-1", "iqn.2014-2.org.example:vol1-2"]
    assert data["target_luns"] == [1, 2]

    attachment = attach({"driver_volume_type": "iscsi", "data": data})

    assert triples(attachment) == [
        ("10.0.1.2:3260", "iqn.2014-2.org.example:vol1-1", 1),
        ("10.0.2.2:3260", "iqn.2014-2.org.example:vol1-2", 2),
    ]
    assert (attachment.wwid, attachment.size_bytes) == (volume.wwid, volume.size)
    assert [text for text in attachment.warnings if "multipathd is not running" not in text] == []
    assert bool(attachment.warnings) is not bool(lab.multipathd.pid)
    write_and_compare(attachment)
    detach(data)
    assert_nothing_left(lab)
    hang_up(backend, volume)


@TARGETS
def test_it_logs_into_every_place(lab: Lab, iscsid: Iscsid, sample: Make, targets: str) -> None:
    """Spec: When nova-compute recognizes these parameters, it will log into every portal
    address/target/lun.
    """
    backend = sample(lab.portals(4), targets=targets)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    attachment = attach(data)
    assert logged_in(lab) == offered(volume)
    assert len(attachment.paths) == len(map_members(lab)) == 4
    write_and_compare(attachment)
    detach(data)
    assert_nothing_left(lab)
    hang_up(backend, volume)


def test_lists_need_no_discovery(lab: Lab, iscsid: Iscsid, sample: Make) -> None:
    """Spec: Since nova-compute can omit discovery query to find multiple portals and targets, this
    change may make volume-attach/detach operations faster.
    """
    backend = sample(lab.portals(2))
    data = ask(backend, backend.create_volume("vol1"))
    with Sniffer() as wire:
        attach(data)
        detach(data)
    assert wire.find(rb"SessionType=Normal")
    assert not wire.find(rb"SessionType=Discovery")
    assert not wire.find(rb"SendTargets=")


@HOW
def test_the_main_portal_is_away_and_comes_back(
    lab: Lab,
    iscsid: Iscsid,
    multipathd: Multipathd,
    sample: Make,
    how: Any,
    record_property: Note,
) -> None:
    """Spec: compute can access to the volume via secondary portals even when the main portal is
    unaccessible due to network trouble. (Note that compute should attach the volume via multipath
    device "dm-X" so that the session to the main portal can be re-established when the network is
    recovered.)
    """
    portals = lab.portals(4)
    backend = sample(portals)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    lab.cut(portals[0], how)

    attachment = manypath.connect(data, timeout=TIMEOUT)

    record_property("seconds to attach", round(attachment.timings.total, 3))
    assert [path.state for path in attachment.paths] == ["pending", *["active"] * 3]
    assert attachment.path.startswith("/dev/dm-")
    assert len(map_members(lab)) == 3
    write_and_compare(attachment)

    lab.heal()
    healed = time.monotonic()
    wait_until(lambda: logged_in(lab) == offered(volume), "the main portal's session", HEAL)
    record_property("seconds to the session", round(time.monotonic() - healed, 3))
    wait_until(lambda: len(map_members(lab)) == 4, "its path is in the map", HEAL)
    record_property("seconds to the path", round(time.monotonic() - healed, 3))
    print(f"{how}: path back {time.monotonic() - healed:.1f} s after the network")

    def all_active() -> bool:
        disks = manypath.inventory().disks
        return [disk.path_state for disk in disks] == [PathState.ACTIVE] * 4

    wait_until(all_active, "four active paths", HEAL)
    again = attach(data)
    assert (again.path, again.map_existed) == (attachment.path, True)
    write_and_compare(again)
    detach(data)
    assert_nothing_left(lab)
    hang_up(backend, volume)


# --- single values and multipath: discovery -----------------------------------------------------


@TARGETS
def test_a_single_portal_is_asked_for_the_others(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, sample: Make, targets: str
) -> None:
    """Spec: Such drivers will return single 'target_portal'/'target_iqn'/'target_lun' even if
    'multipath=True' is specified. Then the connector must send discovery query to the returned
    portal in order to find the multipath portals and targets, like the existing design.
    """
    backend = sample(lab.portals(4), shape="legacy", targets=targets)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    assert "target_portals" not in data

    with Sniffer() as wire:
        attachment = attach(data)

    assert wire.find(rb"SendTargets=All")
    assert logged_in(lab) == offered(volume)
    assert len(attachment.paths) == len(map_members(lab)) == 4
    assert attachment.wwid == volume.wwid
    write_and_compare(attachment)
    detach(data)
    assert_nothing_left(lab)
    hang_up(backend, volume)


@TARGETS
def test_the_other_volumes_of_an_array_are_not_mapped(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, sample: Make, targets: str
) -> None:
    """One LUN number for all volumes and no CHAP: only the identity tells the volumes apart."""
    backend = sample(lab.portals(4), shape="legacy", targets=targets, chap=None, luns=1)
    volume, neighbour = backend.create_volume("vol1"), backend.create_volume("vol2")
    data, _ = ask(backend, volume), ask(backend, neighbour)

    with Sniffer() as wire:
        attachment = manypath.connect(data, timeout=TIMEOUT)

    active = [path for path in attachment.paths if path.state is PathState.ACTIVE]
    assert {(str(path.portal), path.iqn) for path in active} == {
        (f"{address}:3260", iqn) for address, iqn in offered(volume)
    }
    assert logged_in(lab) == offered(volume)
    (dm,) = lab.snapshot().maps
    assert dm.uuid == f"mpath-{volume.wwid}"
    assert set(dm.members) == {path.device for path in active}
    if targets == "shared":  # the target named is on every portal: nobody else needs to be tried
        name = re.escape(neighbour.places[0].iqn.encode())
        assert not wire.find(b"TargetName=" + name + rb"\0(?!TargetAddress=)")
    detach(data)
    assert_nothing_left(lab)


def test_a_neighbour_in_use_stays(lab: Lab, iscsid: Iscsid, sample: Make) -> None:
    """Its sessions serve what was discovered too, but we did not make them for it."""
    backend = sample(lab.portals(2), shape="legacy", targets="per_portal", chap=None, luns=1)
    volume, neighbour = backend.create_volume("vol1"), backend.create_volume("vol2")
    data, other = ask(backend, volume), ask(backend, neighbour)
    first = attach_some(other, neighbour)
    before = {session.sid for session in lab.snapshot().sessions}
    attach_some(data, volume)
    assert before < {session.sid for session in lab.snapshot().sessions}
    detach(data)
    assert {session.sid for session in lab.snapshot().sessions} == before
    assert [dm.device for dm in lab.snapshot().maps] == [first.device]
    write_and_compare(first)
    detach(other)
    assert_nothing_left(lab)


def attach_some(data: dict[str, Any], volume: SampleVolume) -> manypath.Attachment:
    """Attach, where discovery also finds targets of other volumes."""
    attachment = manypath.connect(data, timeout=TIMEOUT)
    assert attachment.wwid == volume.wwid
    active = [path for path in attachment.paths if path.state is PathState.ACTIVE]
    assert len(active) == len(offered(volume))
    return attachment


def test_one_portal_and_multipath_still_gives_a_map(lab: Lab, iscsid: Iscsid, sample: Make) -> None:
    """Spec: (Note that compute should attach the volume via multipath device "dm-X" so that the
    session to the main portal can be re-established when the network is recovered.)
    """
    backend = sample(lab.portals(1))
    data = ask(backend, backend.create_volume("vol1"))
    assert data["target_portal"] == "10.99.1.1:3260"
    attachment = attach(data)
    assert attachment.path.startswith("/dev/dm-")
    assert len(map_members(lab)) == 1
    detach(data)
    assert_nothing_left(lab)


@HOW
def test_the_portal_named_is_dead_but_sessions_exist(
    lab: Lab, iscsid: Iscsid, sample: Make, how: Any
) -> None:
    portals = lab.portals(3)
    backend = sample(portals, shape="legacy")
    data = ask(backend, backend.create_volume("vol1"))
    attachment = attach(data)
    lab.cut(portals[0], how)
    again = manypath.connect(data, timeout=TIMEOUT)
    assert (again.path, again.map_existed) == (attachment.path, True)
    assert len(lab.snapshot().sessions) == 3
    lab.heal()

    def healthy() -> bool:
        return {session.state for session in lab.snapshot().sessions} == {"LOGGED_IN"}

    wait_until(healthy, "all sessions are logged in", HEAL)
    detach(data)
    assert_nothing_left(lab)


@HOW
def test_the_portal_named_is_dead_and_no_session_exists(
    lab: Lab, iscsid: Iscsid, sample: Make, how: Any
) -> None:
    portals = lab.portals(2)
    backend = sample(portals, shape="legacy")
    data = ask(backend, backend.create_volume("vol1"))
    lab.cut(portals[0], how)
    begun = time.monotonic()
    with pytest.raises((errors.PortalError, errors.OperationTimeoutError)):
        manypath.connect(data, timeout=10)
    assert time.monotonic() - begun < 11
    assert_nothing_left(lab)


# --- CHAP ---------------------------------------------------------------------------------------

ONE_WAY = Chap("alice", "a-good-secret")
MUTUAL = Chap("alice", "a-good-secret", "array", "another-secret")
CHAPS = pytest.mark.parametrize("chap", [ONE_WAY, MUTUAL], ids=["one-way", "mutual"])


@CHAPS
@TARGETS
def test_chap_on_all_portals(
    lab: Lab, iscsid: Iscsid, sample: Make, chap: Chap, targets: str
) -> None:
    """Spec: Note that if any CHAP credentials are provided in connection_info, they must be applied
    on the all target_portals.
    """
    backend = sample(lab.portals(4), chap=chap, targets=targets)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    with Sniffer() as wire:
        attachment = attach(data)
    answers = wire.find(rb"CHAP_N=alice\0")
    assert len(answers) == len(attachment.paths) == 4
    assert bool(wire.find(rb"CHAP_N=array\0")) == bool(chap.mutual_user)
    write_and_compare(attachment)
    detach(data)
    assert_nothing_left(lab)
    hang_up(backend, volume)


WRONG = {
    "user": {"auth_username": "mallory"},
    "secret": {"auth_password": "not-the-secret"},
    "target's user": {"auth_username_in": "mallory"},
    "target's secret": {"auth_password_in": "not-the-secret"},
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("multipath", [True, False], ids=["multipath", "single"])
def test_wrong_credentials(
    lab: Lab, iscsid: Iscsid, sample: Make, wrong: str, multipath: bool, record_property: Note
) -> None:
    backend = sample(lab.portals(4), chap=MUTUAL, volume_group=None)
    data = ask(backend, backend.create_volume("vol1"))
    error = refused(
        data | WRONG[wrong], errors.AuthenticationError, record_property, multipath=multipath
    )
    assert not error.retryable
    assert_nothing_left(lab)
    attach(data)
    detach(data)
    assert_nothing_left(lab)


def test_missing_credentials(lab: Lab, iscsid: Iscsid, sample: Make, record_property: Note) -> None:
    backend = sample(lab.portals(4))
    data = ask(backend, backend.create_volume("vol1"))
    without = {key: value for key, value in data.items() if not key.startswith("auth_")}
    refused(without, errors.AuthenticationError, record_property)
    assert_nothing_left(lab)


NUMBERS = {"MD5": 5, "SHA1": 6, "SHA256": 7, "SHA3-256": 8}
OFFERS = [*([name] for name in NUMBERS), ["SHA3-256", "MD5"], "SHA256,SHA1,MD5"]


@pytest.mark.parametrize("offer", OFFERS, ids=str)
@pytest.mark.parametrize("shape", ["lists", "legacy"])
def test_each_algorithm_of_lio(
    lab: Lab, iscsid: Iscsid, sample: Make, offer: list[str] | str, shape: str
) -> None:
    """LIO takes the first that it knows; for discovery we speak CHAP ourselves."""
    finder = Chap("finder", "a-finders-secret", "array", "another-secret")
    discovery_chap = finder if shape == "legacy" else None
    options = {"chap": MUTUAL, "discovery_chap": discovery_chap, "volume_group": None}
    backend = sample(lab.portals(2), shape=shape, **options)
    data = ask(backend, backend.create_volume("vol1")) | {"auth_algorithms": offer}
    if discovery_chap:
        data["discovery_auth_algorithms"] = offer
    with Sniffer() as wire:
        attach(data)
    first = offer[0] if isinstance(offer, list) else offer.partition(",")[0]
    assert {int(number) for number in wire.find(rb"CHAP_A=(\d+)\0")} == {NUMBERS[first]}
    detach(data)
    assert_nothing_left(lab)


@CHAPS
def test_chap_at_discovery(lab: Lab, iscsid: Iscsid, sample: Make, chap: Chap) -> None:
    finder = Chap("finder", "a-finders-secret", chap.mutual_user, chap.mutual_password)
    backend = sample(lab.portals(4), shape="legacy", discovery_chap=finder)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    with Sniffer() as wire:
        attach(data)
    assert wire.find(rb"CHAP_N=finder\0")
    assert logged_in(lab) == offered(volume)
    detach(data)
    assert_nothing_left(lab)


@pytest.mark.parametrize("wrong", [*WRONG, "missing"])
def test_wrong_credentials_at_discovery(
    lab: Lab, iscsid: Iscsid, sample: Make, wrong: str, record_property: Note
) -> None:
    finder = Chap("finder", "a-finders-secret", "array", "another-secret")
    options = {"discovery_chap": finder, "volume_group": None}
    backend = sample(lab.portals(2), shape="legacy", **options)
    data = ask(backend, backend.create_volume("vol1"))
    if wrong == "missing":
        bad = {key: value for key, value in data.items() if not key.startswith("discovery_auth")}
    else:
        bad = data | {f"discovery_{key}": value for key, value in WRONG[wrong].items()}
    error = refused(bad, errors.AuthenticationError, record_property)
    assert error.phase == "discovery"
    assert_nothing_left(lab)


# --- discovery of real targets ------------------------------------------------------------------


@pytest.mark.parametrize("portals", [1, 4])
@pytest.mark.parametrize("count", [1, 64, 500])
def test_discovery_of_many_targets(
    lab: Lab, count: int, portals: int, record_property: Note
) -> None:
    """500 targets do not fit into one answer PDU. Needs no iscsid."""
    places = lab.portals(portals)
    names = lab.targets.bare_targets(count, places)
    begun = time.monotonic()
    found = manypath.discover(str(places[0]), timeout=120)
    took = time.monotonic() - begun
    record_property("seconds to discover", round(took, 3))
    print(f"{count} targets on {portals} portals: {took:.2f} s")
    assert str(found.portal) == str(places[0])
    assert len(found.targets) == count * portals
    assert {(target.iqn, str(target.portal)) for target in found.targets} == {
        (name, str(place)) for name in names for place in places
    }
    assert {target.tag for target in found.targets} == {1}


def test_discovery_finds_what_iscsiadm_finds(lab: Lab, iscsid: Iscsid) -> None:
    places = [*lab.portals(2), lab.portal(1, family=6), lab.portal(3, port=3261)]
    lab.targets.bare_targets(5, places)
    done = iscsiadm("-m", "discovery", "-t", "sendtargets", "-p", str(places[0]))
    assert done.returncode == 0, done.stderr
    found = manypath.discover(str(places[0]), timeout=30)
    told = {(target.portal, target.iqn) for target in found.targets}
    lines = [line.split() for line in done.stdout.splitlines()]
    assert told == {(manypath.Portal.parse(portal), iqn) for portal, iqn in lines}
    assert len(told) == 20


def test_discovery_where_nothing_is(lab: Lab) -> None:
    with pytest.raises(errors.PortalRefusedError):
        manypath.discover(str(lab.portal(1)), timeout=10)


# --- IPv6 ---------------------------------------------------------------------------------------

SPELLINGS: dict[str, Callable[[str], str]] = {
    "bracketed": lambda address: f"[{address}]:3260",
    "unbracketed": lambda address: f"{address}:3260",
    "upper": lambda address: f"[{address.upper()}]:3260",
    "uncompressed": lambda address: f"[{IPv6Address(address).exploded}]:3260",
    "without port": lambda address: f"[{address}]",
    "bare": lambda address: address,
    "tagged": lambda address: f"[{address}]:3260,1",
}


def spelled(data: dict[str, Any], spelling: str, portals: list[Portal]) -> dict[str, Any]:
    write = SPELLINGS[spelling]
    return {**data, "target_portals": [write(portal.address) for portal in portals]}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_an_ipv6_portal(
    lab: Lab, iscsid: Iscsid, sample: Make, spelling: str
) -> None:
    """Connect with one, connect again and disconnect with another."""
    names = list(SPELLINGS)
    other = names[(names.index(spelling) + 3) % len(names)]
    portals = lab.portals(2, family=6)
    backend = sample(portals, volume_group=None)
    data = ask(backend, backend.create_volume("vol1"))
    assert data["target_portals"] == ["[fd00:99:1::1]:3260", "[fd00:99:2::1]:3260"]
    first = attach(spelled(data, spelling, portals))
    again = attach(spelled(data, other, portals))
    assert (again.path, again.map_existed) == (first.path, True)
    assert all(path.session_existed for path in again.paths)
    assert len(lab.snapshot().sessions) == 2
    detach(spelled(data, other, portals))
    assert_nothing_left(lab)


@pytest.mark.parametrize("made_as", ["fd00:99:1::1", "FD00:99:1::1", "fd00:0099:1:0:0:0:0:1"])
def test_a_session_made_by_iscsiadm_under_any_spelling(
    lab: Lab, iscsid: Iscsid, sample: Make, made_as: str
) -> None:
    backend = sample([lab.portal(1, family=6)], chap=None)
    data = ask(backend, backend.create_volume("vol1"), multipath=False)
    done = login(Portal(made_as), data["target_iqn"])
    assert done.returncode == 0, done.stdout + done.stderr
    attachment = attach(data, multipath=False)
    assert [path.session_existed for path in attachment.paths] == [True]
    assert len(lab.snapshot().sessions) == 1
    detach(data, multipath=False)
    assert_nothing_left(lab)


def test_ipv6_portals_are_discovered(lab: Lab, iscsid: Iscsid, sample: Make) -> None:
    """The discovery brings LIO's spelling, which is neither ours nor the caller's."""
    portals = lab.portals(3, family=6)
    backend = sample(portals, shape="legacy")
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    attach({**data, "target_portal": "fd00:0099:0001:0000:0000:0000:0000:0001:3260"})
    assert len(lab.snapshot().sessions) == 3
    detach({**data, "target_portal": "[FD00:99:1::1]"})
    assert_nothing_left(lab)


# --- one path -----------------------------------------------------------------------------------


def attach_single(data: dict[str, Any], wwid: str) -> manypath.Attachment:
    attachment = manypath.connect(data, multipath=False, timeout=TIMEOUT)
    assert attachment.wwid == wwid
    (path,) = [path for path in attachment.paths if path.state is PathState.ACTIVE]
    assert path.device and path.device.startswith("sd")
    assert (attachment.path, attachment.device) == (f"/dev/{path.device}", path.device)
    return attachment


def only_session(lab: Lab) -> Session:
    state = lab.snapshot()
    assert (len(state.sessions), len(state.devices), state.maps) == (1, 1, ())
    return state.sessions[0]


@pytest.mark.parametrize("multipath", [False, None], ids=["False", "missing"])
def test_without_multipath_a_plain_disk(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, sample: Make, multipath: bool | None
) -> None:
    """Spec: When the 'multipath=False' is specified or the key is omitted, the API must return
    'target_portal'/'target_iqn'/'target_lun' set.
    """
    backend = sample(lab.portals(4))
    volume = backend.create_volume("vol1")
    data = ask(backend, volume, multipath=multipath)
    attachment = attach_single(data, volume.wwid)
    assert attachment.size_bytes == volume.size
    assert only_session(lab).address == "10.99.1.1"
    write_and_compare(attachment)
    detach(data, multipath=False)
    assert_nothing_left(lab)
    hang_up(backend, volume)


def then_the_second(lab: Lab, data: dict[str, Any], wwid: str, note: Note) -> None:
    """The first portal of ``data`` does not serve; the volume must come through the second."""
    attachment = attach_single(data, wwid)
    note("seconds to attach", round(attachment.timings.total, 3))
    session = only_session(lab)
    assert (session.address, session.iqn) == ("10.99.2.1", data["target_iqns"][1])
    write_and_compare(attachment)
    again = attach_single(data, wwid)
    assert again.path == attachment.path
    detach(data, multipath=False)
    assert_nothing_left(lab)


@HOW
@TARGETS
def test_single_path_fails_over_on_a_dead_portal(
    lab: Lab, iscsid: Iscsid, sample: Make, how: Any, targets: str, record_property: Note
) -> None:
    portals = lab.portals(3)
    backend = sample(portals, targets=targets)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume)
    lab.cut(portals[0], how)
    then_the_second(lab, data, volume.wwid, record_property)


def two_exports(lab: Lab, **first: Any) -> tuple[dict[str, Any], str]:
    """Properties with a target that serves badly in front of one that serves well."""
    volume = lab.volume()
    bad = lab.export(volume, [lab.portal(1)], **first).properties
    good = lab.export(volume, [lab.portal(2)]).properties
    plurals = ("target_portals", "target_iqns", "target_luns")
    return {key: bad[key] + good[key] for key in plurals}, volume.wwid


def test_single_path_fails_over_on_a_refused_login(
    lab: Lab, iscsid: Iscsid, record_property: Note
) -> None:
    data, wwid = two_exports(lab, access="not_us")
    then_the_second(lab, data, wwid, record_property)


def test_single_path_fails_over_on_a_missing_lun(
    lab: Lab, iscsid: Iscsid, record_property: Note
) -> None:
    data, wwid = two_exports(lab)
    missing = {**data, "target_luns": [7, 1]}
    then_the_second(lab, missing, wwid, record_property)


def test_single_path_keeps_a_session_of_somebody_else(lab: Lab, iscsid: Iscsid) -> None:
    """What was tried for nothing is undone, but only what we made ourselves."""
    data, wwid = two_exports(lab)
    assert login(lab.portal(1), data["target_iqns"][0]).returncode == 0
    (before,) = lab.snapshot().sessions
    missing = {**data, "target_luns": [7, 1]}
    attach_single(missing, wwid)
    assert before.sid in {session.sid for session in lab.snapshot().sessions}
    detach(missing, multipath=False)
    lab.log_out()


def test_single_path_marks_its_disk(lab: Lab, iscsid: Iscsid) -> None:
    """For an attach of another process that fails; the kernel forgets the mark with the disk."""
    data, wwid = two_exports(lab)
    folder = Path("/sys/block", attach_single(data, wwid).device, "device").resolve()
    assert os.getxattr(folder, "trusted.manypath.attached") == b"1"
    detach(data, multipath=False)
    assert not folder.exists()
    lab.log_out()


def test_single_path_with_every_portal_dead(lab: Lab, iscsid: Iscsid, sample: Make) -> None:
    portals = lab.portals(3)
    backend = sample(portals)
    data = ask(backend, backend.create_volume("vol1"))
    for portal in portals:
        lab.cut(portal, "reject")
    with pytest.raises(errors.PortalRefusedError) as caught:
        manypath.connect(data, multipath=False, timeout=TIMEOUT)
    assert len(caught.value.paths) == 3
    assert_nothing_left(lab)


# --- records on disk ----------------------------------------------------------------------------


def records() -> dict[str, str]:
    """Every file of open-iscsi's databases, and a hash of its content."""
    files = [file for folder in DATABASES for file in folder.rglob("*") if file.is_file()]
    found = {}
    for file in files:
        with suppress(FileNotFoundError):  # iscsiadm's lock
            found[str(file)] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def folders() -> set[Path]:
    return {path for folder in DATABASES for path in folder.rglob("*") if path.is_dir()}


@pytest.mark.parametrize("shape", ["lists", "legacy"])
@pytest.mark.parametrize("multipath", [True, False], ids=["multipath", "single"])
def test_no_record_is_written(
    lab: Lab, iscsid: Iscsid, sample: Make, shape: str, multipath: bool
) -> None:
    backend = sample(lab.portals(2), shape=shape)
    data = ask(backend, backend.create_volume("vol1"), multipath=multipath)
    before = records(), folders()
    manypath.discover(str(backend.portals[0]), timeout=30)
    attach(data, multipath=multipath)
    assert (records(), folders()) == before
    detach(data, multipath=multipath)
    assert (records(), folders()) == before


@pytest.mark.parametrize("multipath", [True, False], ids=["multipath", "single"])
def test_a_stale_discovery_record_changes_nothing(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, sample: Make, multipath: bool
) -> None:
    """The incumbent, asked to detach the third volume, removes the two that the record names."""
    backend = sample(lab.portals(1), chap=None, luns=0)
    neighbours = [backend.create_volume(name) for name in ("vol1", "vol2")]
    answers = [ask(backend, volume, multipath=multipath) for volume in neighbours]
    attached = [attach(data, multipath=multipath) for data in answers]
    portal = answers[0]["target_portal"]
    discover = ("-m", "discoverydb", "-t", "sendtargets", "-p", portal)
    assert iscsiadm(*discover, "-o", "new").returncode == 0
    done = iscsiadm(*discover, "--discover")
    assert all(data["target_iqn"] in done.stdout for data in answers), done.stderr
    third = backend.create_volume("vol3")
    last = ask(backend, third, multipath=multipath)
    assert last["target_iqn"] not in done.stdout
    before, recorded = lab.snapshot(), records()
    assert len(before.sessions) == len(before.devices) == 2

    attachment = manypath.connect(last, multipath=multipath, timeout=TIMEOUT)
    assert attachment.wwid == third.wwid
    detach(last, multipath=multipath)

    after = lab.snapshot()
    assert (after.sessions, after.devices) == (before.sessions, before.devices)
    assert [dm.uuid for dm in after.maps] == [dm.uuid for dm in before.maps]
    assert records() == recorded
    for neighbour in attached:
        write_and_compare(neighbour)
    for data in answers:
        detach(data, multipath=multipath)
    assert_nothing_left(lab)
