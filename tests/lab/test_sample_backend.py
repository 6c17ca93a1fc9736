"""The sample backend answers as the specification demands (enhance-iscsi-multipath).

A docstring that begins with "Spec:" quotes the sentence the test checks, word by word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import BackendError, SampleBackend, SampleVolume
from lab import Chap, Iscsid, Lab, ScsiDevice, run, wait_until
from lab.iscsiadm import iscsiadm, login
from lab.network import Portal
from lab.target import INITIATOR, OTHER_INITIATOR

MIB = 1 << 20
LIO = Path("/sys/kernel/config/target/iscsi")
SINGLES = {"target_portal", "target_iqn", "target_lun"}
PLURALS = {"target_portals", "target_iqns", "target_luns"}

CONNECTOR = {
    "initiator": INITIATOR,
    "host": "lab",
    "ip": "10.99.1.1",
    "platform": "x86_64",
    "os_type": "linux",
}
WITHOUT = pytest.mark.parametrize("multipath", [{"multipath": False}, {}], ids=["False", "missing"])
TARGETS = pytest.mark.parametrize("targets", ["shared", "per_portal"])

Make = Callable[..., SampleBackend]


def ask(backend: SampleBackend, volume: SampleVolume, **keys: Any) -> dict[str, Any]:
    """``data`` of the answer to our connector with these keys added."""
    answer = backend.initialize_connection(volume, {**CONNECTOR, **keys})
    assert answer["driver_volume_type"] == "iscsi"
    assert json.loads(json.dumps(answer)) == answer, "it goes over REST as JSON"
    return answer["data"]


def target_keys(data: dict[str, Any]) -> set[str]:
    return {key for key in data if key in SINGLES | PLURALS}


def triples(data: dict[str, Any]) -> list[tuple[str, str, int]]:
    columns = (data["target_portals"], data["target_iqns"], data["target_luns"])
    return list(zip(*columns, strict=True))


def group_of(iqn: str) -> Path:
    """LIO's only portal group of a target."""
    return LIO / iqn / "tpgt_1"


def is_served(portal: str, iqn: str, lun: int, volume: SampleVolume) -> bool:
    """Whether LIO has that target on that portal, with the volume behind that LUN for us."""
    group = group_of(iqn)
    links = [link for link in (group / f"lun/lun_{lun}").iterdir() if link.is_symlink()]
    ours = group / "acls" / INITIATOR / f"lun_{lun}"
    return (
        (group / "enable").read_text().strip() == "1"
        and (group / "np" / portal).is_dir()
        and [link.resolve().name for link in links] == [volume.name]
        and ours.is_dir()
    )


def portal_of(text: str) -> Portal:
    address, _, port = text.rpartition(":")
    return Portal(address.strip("[]"), int(port))


def credentials(data: dict[str, Any]) -> Chap:
    assert data["auth_method"] == "CHAP"
    return Chap(data["auth_username"], data["auth_password"])


# --- REST API impact --------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [{"multipath": True}, {"multipath": False}, {}], ids=str)
def test_the_parameter_is_optional(lab: Lab, sample: Make, keys: dict[str, bool]) -> None:
    """Spec: 'os-initialize_connection' volume action API will take new optional parameter
    'multipath' in the connector argument, that means the connector can handle multipath to iSCSI
    volumes.
    """
    backend = sample(lab.portals(2))
    volume = backend.create_volume("vol1")
    assert target_keys(ask(backend, volume, **keys)) in (SINGLES, PLURALS)


@TARGETS
def test_true_gives_lists(lab: Lab, sample: Make, targets: str) -> None:
    """Spec: When the 'multipath=True' is specified, 'os-initialize_connection' volume action API
    respond with 'target_portals'/'target_iqns'/'target_luns' in 'connection_info' which contain a
    list of portal IP address:port pairs, a list of secondary iqn's and lun's corresponding to each
    portal address.
    """
    portals = lab.portals(4)
    backend = sample(portals, targets=targets, luns=3)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume, multipath=True)
    assert data["target_portals"] == [f"10.99.{n}.1:3260" for n in range(1, 5)]
    assert len(data["target_iqns"]) == len(data["target_luns"]) == 4
    assert len(set(data["target_iqns"])) == (1 if targets == "shared" else 4)
    assert all(is_served(*place, volume) for place in triples(data))


@TARGETS
def test_lists_replace_the_single_values(lab: Lab, sample: Make, targets: str) -> None:
    """Spec: Current 'target_portal'/'target_iqn'/'target_lun' parameters will be replaced with
    'target_portals'/'target_iqns'/'target_luns' which have a list of the addresses of the iSCSI
    portals and the corresponding iqn/lun to each portal.
    """
    backend = sample(lab.portals(2), targets=targets)
    data = ask(backend, backend.create_volume("vol1"), multipath=True)
    assert target_keys(data) == PLURALS


def example(lab: Lab, sample: Make, **options: Any) -> tuple[SampleBackend, SampleVolume]:
    """The specification's example, as a backend."""
    portals = [lab.portal_at("10.0.1.2"), lab.portal_at("10.0.2.2")]
    prefix = "iqn.2014-2.org.example:"
    backend = sample(portals, targets="per_portal", luns=[1, 2], iqn_prefix=prefix, **options)
    return backend, backend.create_volume("vol1")


def test_the_example(lab: Lab, sample: Make) -> None:
    """Spec: For example:

    {"connection_info": {"driver_volume_type": "iscsi", ...
                         "data": {"target_portals": ["10.0.1.2:3260", "10.0.2.2:3260"],
                                  "target_iqns": ["iqn.2014-2.org.example:vol1-1",
                                                  "iqn.2014-2.org.example:vol1-2"],
                                  "target_luns": [1, 2],
                                  ...}}}
    """
    backend, volume = example(lab, sample)
    answer = backend.initialize_connection(volume, {**CONNECTOR, "multipath": True})
    assert answer["driver_volume_type"] == "iscsi"
    data = answer["data"]
    assert data["target_portals"] == ["10.0.1.2:3260", "10.0.2.2:3260"]
    assert data["target_iqns"] == ["iqn.2014-2.org.example:vol1-1", "iqn.2014-2.org.example:vol1-2"]
    assert data["target_luns"] == [1, 2]


def test_what_corresponds_in_the_example(lab: Lab, sample: Make) -> None:
    """Spec: In this case, "iqn.2014-2.org.example:vol1-1", lun=1 is for portal "10.0.1.2:3260", and
    "iqn.2014-2.org.example:vol1-2", lun=2 is for portal "10.0.2.2:3260".
    """
    backend, volume = example(lab, sample)
    ask(backend, volume, multipath=True)
    assert is_served("10.0.1.2:3260", "iqn.2014-2.org.example:vol1-1", 1, volume)
    assert is_served("10.0.2.2:3260", "iqn.2014-2.org.example:vol1-2", 2, volume)
    for iqn, portals in (("vol1-1", ["10.0.1.2:3260"]), ("vol1-2", ["10.0.2.2:3260"])):
        np = group_of(f"iqn.2014-2.org.example:{iqn}") / "np"
        assert [portal.name for portal in np.iterdir()] == portals


# --- Proposed change --------------------------------------------------------------------------


@WITHOUT
@TARGETS
def test_without_multipath_the_single_values(
    lab: Lab, sample: Make, multipath: dict[str, bool], targets: str
) -> None:
    """Spec: When the 'multipath=False' is specified or the key is omitted, the API must return
    'target_portal'/'target_iqn'/'target_lun' set.
    """
    backend = sample(lab.portals(4), targets=targets, luns=5)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume, **multipath)
    assert target_keys(data) == SINGLES
    assert data["target_portal"] == "10.99.1.1:3260"
    assert is_served(data["target_portal"], data["target_iqn"], data["target_lun"], volume)


@pytest.mark.parametrize("multipath", [True, False, None])
def test_not_configured_for_multipath(lab: Lab, sample: Make, multipath: bool | None) -> None:
    """Spec: When the backend doesn't support (or not configured to support) multipath, the driver
    may return current 'target_portal'/'target_iqn'/'target_lun' set.
    """
    backend = sample(lab.portals(1))
    data = ask(backend, backend.create_volume("vol1"), multipath=multipath)
    assert target_keys(data) == SINGLES


def test_the_volume_is_exported_to_multiple_ports(lab: Lab, sample: Make) -> None:
    """Spec: This parameter is passed to the backend driver so that the driver can export a volume
    to multiple ports.
    """
    backend = sample([*lab.portals(2), lab.portal(3, family=6)])
    data = ask(backend, backend.create_volume("vol1"), multipath=True)
    (iqn,) = set(data["target_iqns"])
    served = {portal.name for portal in (group_of(iqn) / "np").iterdir()}
    assert served == set(data["target_portals"]) == {str(portal) for portal in backend.portals}


# --- Developer impact -------------------------------------------------------------------------


@TARGETS
def test_an_existing_driver_answers_with_single_values(
    lab: Lab, sample: Make, targets: str
) -> None:
    """Spec: Existing drivers which support multipath with the existing design must work even if
    they don't support this change. Such drivers will return single
    'target_portal'/'target_iqn'/'target_lun' even if 'multipath=True' is specified.
    """
    backend = sample(lab.portals(4), shape="legacy", targets=targets)
    data = ask(backend, backend.create_volume("vol1"), multipath=True)
    assert target_keys(data) == SINGLES


@TARGETS
def test_an_existing_driver_is_discovered(
    lab: Lab, iscsid: Iscsid, sample: Make, targets: str
) -> None:
    """Spec: Then the connector must send discovery query to the returned portal in order to find
    the multipath portals and targets, like the existing design.
    """
    backend = sample(lab.portals(4), shape="legacy", targets=targets)
    volume = backend.create_volume("vol1")
    data = ask(backend, volume, multipath=True)
    done = iscsiadm("-m", "discovery", "-t", "sendtargets", "-p", data["target_portal"])
    assert done.returncode == 0, done.stderr
    found = {tuple(line.replace(",1 ", " ").split()) for line in done.stdout.splitlines()}
    assert found == {(str(p), place.iqn) for place in volume.places for p in place.portals}
    assert (data["target_portal"], data["target_iqn"]) in found


# --- Other deployer impact --------------------------------------------------------------------


def test_secondary_addresses_are_a_setting(lab: Lab, sample: Make) -> None:
    """Spec: For example, to utilize this feature in iSCSI LVM driver, we needs to specify a list of
    secondary IP addresses of the cinder-volume node where iSCSI targets run on.
    """
    primary, *secondary = lab.portals(3)
    for count in range(3):
        backend = lab.keep(SampleBackend(primary, secondary[:count]))
        data = ask(backend, backend.create_volume(f"vol{count}"), multipath=True)
        listed = data.get("target_portals", [data.get("target_portal")])
        assert listed == [str(portal) for portal in (primary, *secondary[:count])]


# --- Security impact --------------------------------------------------------------------------


@TARGETS
@pytest.mark.parametrize("mutual", [False, True], ids=["one-way", "mutual"])
def test_chap_is_the_same_on_all_portals(
    lab: Lab, sample: Make, targets: str, mutual: bool
) -> None:
    """Spec: Note that if any CHAP credentials are provided in connection_info, they must be applied
    on the all target_portals.
    """
    chap: Any = Chap("alice", "a-good-secret", "array", "another-secret") if mutual else True
    backend = sample(lab.portals(4), targets=targets, chap=chap)
    data = ask(backend, backend.create_volume("vol1"), multipath=True)
    wanted = {"userid": data["auth_username"], "password": data["auth_password"]}
    if mutual:
        wanted |= {"userid_mutual": data["auth_username_in"]}
        wanted |= {"password_mutual": data["auth_password_in"]}
    for iqn in data["target_iqns"]:
        group = group_of(iqn)
        assert (group / "attrib/authentication").read_text().strip() == "1"
        auth = group / "acls" / INITIATOR / "auth"
        assert {name: (auth / name).read_text().strip() for name in wanted} == wanted


@TARGETS
def test_every_portal_wants_these_credentials(
    lab: Lab, iscsid: Iscsid, sample: Make, targets: str
) -> None:
    """Spec: Note that if any CHAP credentials are provided in connection_info, they must be applied
    on the all target_portals.
    """
    backend = sample(lab.portals(3), targets=targets)
    data = ask(backend, backend.create_volume("vol1"), multipath=True)
    for portal, iqn, _ in triples(data):
        assert login(portal_of(portal), iqn).returncode == 24, "let in without credentials"
        done = login(portal_of(portal), iqn, credentials(data))
        assert done.returncode == 0, done.stderr
    lab.log_out()


def test_credentials_are_generated_for_each_volume(lab: Lab, sample: Make) -> None:
    backend = sample(lab.portals(2))
    answers = [ask(backend, backend.create_volume(name)) for name in ("vol1", "vol2")]
    assert len({data["auth_password"] for data in answers}) == 2
    assert all(12 <= len(data["auth_password"]) <= 16 for data in answers)
    assert "auth_password" not in repr(backend.volumes)
    assert not any(data["auth_password"] in repr(backend.volumes) for data in answers)


def test_without_chap_no_credentials(lab: Lab, sample: Make) -> None:
    backend = sample(lab.portals(2), chap=None)
    data = ask(backend, backend.create_volume("vol1"), multipath=True)
    assert not [key for key in data if "auth" in key]


# --- the rest of a driver ---------------------------------------------------------------------


def test_a_connector_without_initiator_is_refused(lab: Lab, sample: Make) -> None:
    backend = sample(lab.portals(1))
    volume = backend.create_volume("vol1")
    with pytest.raises(BackendError, match="initiator"):
        backend.initialize_connection(volume, {"host": "lab"})


def test_only_connected_initiators_get_in(lab: Lab, iscsid: Iscsid, sample: Make) -> None:
    backend = sample(lab.portals(1))
    volume = backend.create_volume("vol1")
    other = {**CONNECTOR, "initiator": OTHER_INITIATOR}
    data = backend.initialize_connection(volume, other)["data"]
    place = (portal_of(data["target_portal"]), data["target_iqn"], credentials(data))
    assert login(*place).returncode == 24
    assert ask(backend, volume) == data
    assert ask(backend, volume) == data, "asking again changes nothing"
    assert login(*place).returncode == 0
    lab.log_out()
    backend.terminate_connection(volume, CONNECTOR)
    backend.terminate_connection(volume, CONNECTOR)
    assert volume.initiators == [OTHER_INITIATOR]
    assert login(*place).returncode == 24


def test_a_connected_volume_is_not_deleted(lab: Lab, sample: Make) -> None:
    backend = sample(lab.portals(2))
    volume = backend.create_volume("vol1")
    ask(backend, volume)
    with pytest.raises(BackendError, match=INITIATOR):
        backend.delete_volume(volume)
    backend.terminate_connection(volume, None)
    backend.delete_volume(volume)
    assert backend.volumes == []
    assert not list(LIO.glob("*sample*"))


def test_it_never_shrinks(lab: Lab, sample: Make) -> None:
    backend = sample(lab.portals(1))
    volume = backend.create_volume("vol1", 32)
    with pytest.raises(BackendError, match="only grow"):
        backend.extend_volume(volume, 16)
    assert volume.size == 32 * MIB


@pytest.fixture(params=["lvm", "file"])
def stored(request: pytest.FixtureRequest, lab: Lab, sample: Make) -> Iterator[SampleBackend]:
    """A backend of each kind of storage."""
    options = {} if request.param == "lvm" else {"volume_group": None}
    backend = sample(lab.portals(2), chap=None, **options)
    yield backend
    backend.close()
    assert not list(Path("/sys/kernel/config/target/core").glob("*/vol1"))


def disk_at(lab: Lab) -> ScsiDevice:
    wait_until(lambda: any(disk.sectors for disk in lab.snapshot().devices), "a disk")
    return lab.snapshot().devices[0]


def test_extend_reaches_the_host(lab: Lab, iscsid: Iscsid, stored: SampleBackend) -> None:
    volume = stored.create_volume("vol1", 16)
    data = ask(stored, volume)
    done = login(portal_of(data["target_portal"]), data["target_iqn"])
    assert done.returncode == 0, done.stderr
    before = disk_at(lab)
    assert before.sectors == 16 * MIB // 512
    wwid = Path(f"/sys/block/{before.name}/device/wwid").read_text().strip()
    assert wwid == f"naa.{volume.wwid[1:]}"
    stored.extend_volume(volume, 48)
    Path(f"/sys/block/{before.name}/device/rescan").write_text("1")
    assert disk_at(lab).sectors == 48 * MIB // 512
    lab.log_out()


def test_a_volume_is_a_logical_volume_or_a_file(lab: Lab, volume_group: str) -> None:
    with_group = lab.keep(SampleBackend(lab.portal(1), volume_group=volume_group))
    assert with_group.create_volume("vol1").path.is_block_device()
    listed = ("lvs", "--noheadings", "--options", "lv_name", volume_group)
    assert run(*listed).split() == ["vol1"]
    with_group.close()
    assert run(*listed).split() == []

    without = lab.keep(SampleBackend(lab.portal(1)))
    volume = without.create_volume("vol1")
    assert volume.path.is_file()
    assert volume.path.stat().st_size == volume.size
    without.close()
    assert not volume.path.exists()


def test_a_volume_that_cannot_be_exported_leaves_nothing(lab: Lab, sample: Make) -> None:
    backend = sample(lab.portals(1))
    backend.create_volume("vol1")
    with pytest.raises(Exception, match="vol1"):
        backend.create_volume("vol1")
    assert len(backend.volumes) == 1
    backend.close()
    backend.create_volume("vol1")
