"""The lab tests itself: what other tests rely on is shown to work here."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backend import SampleBackend
from lab import (
    Chap,
    Iscsid,
    Lab,
    Multipathd,
    kernel_trouble,
    leaks,
    run,
    wait_until,
)
from lab.blockdev import device_path, pattern, read_direct, write_direct
from lab.daemons import MULTIPATHD_SOCKET, listening
from lab.iscsiadm import iscsiadm, login
from lab.network import Portal
from lab.sniffer import Sniffer
from lab.state import ScsiDevice, Session, snapshot
from lab.target import Export

BLOCK = 4096
# Quick timers, so that a cut shows within seconds. Names are iscsiadm's, "__" for the dot.
QUICK = {
    "node__session__timeo__replacement_timeout": "2",
    "node__conn[0]__timeo__noop_out_interval": "1",
    "node__conn[0]__timeo__noop_out_timeout": "1",
    "node__conn[0]__timeo__login_timeout": "3",
}


def log_in(export: Export, portal: int = 0, **settings: str) -> Session:
    """Log in through one portal of an export; the session with its devices."""
    iqn = export.properties["target_iqns"][portal]
    where = export.portals[portal]
    done = login(where, iqn, export.chap, **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    return wait_until(lambda: session_with_disk(where, iqn), f"a disk behind {where}")


def session_with_disk(portal: Portal, iqn: str) -> Session | None:
    for session in snapshot().sessions:
        same = (session.iqn, session.address) == (iqn, portal.address)
        if same and session.state == "LOGGED_IN" and session.devices:
            return session
    return None


def disk(name: str) -> ScsiDevice:
    return next(device for device in snapshot().devices if device.name == name)


def state_of(sid: int) -> str:
    return next(session.state for session in snapshot().sessions if session.sid == sid)


def wwid_of(device: str) -> str:
    return Path(f"/sys/block/{device}/device/wwid").read_text().strip()


def rescan(device: str) -> None:
    Path(f"/sys/block/{device}/device/rescan").write_text("1")


# --- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["per_portal", "shared"])
def test_volume_is_reached_through_four_portals(lab: Lab, iscsid: Iscsid, shape: str) -> None:
    volume = lab.volume(size_mib=32)
    export = lab.export(volume, lab.portals(4), shape=shape)
    assert len(set(export.properties["target_iqns"])) == (4 if shape == "per_portal" else 1)

    sessions = [log_in(export, portal) for portal in range(4)]

    names = [session.devices[0] for session in sessions]
    assert len(set(names)) == 4
    assert {wwid_of(name) for name in names} == {f"naa.{volume.wwid[1:]}"}
    assert {disk(name).sectors for name in names} == {32 << 11}
    write_direct(device_path(names[0]), pattern("four"), BLOCK)
    assert read_direct(device_path(names[3]), BLOCK) == pattern("four")
    lab.log_out()


def test_ipv6_portal(lab: Lab, iscsid: Iscsid) -> None:
    export = lab.export(lab.volume(), [lab.portal(7, family=6)])
    assert export.properties["target_portal"] == "[fd00:99:7::1]:3260"
    assert log_in(export).port == 3260
    lab.log_out()


def test_several_volumes_on_one_target_and_chosen_numbers(lab: Lab, iscsid: Iscsid) -> None:
    first, second = lab.volume(), lab.volume()
    numbers = {0: 1, 1: 300}
    export = lab.export(
        [first, second], lab.portals(1), shape="shared", lun=lambda _target, v: numbers[v]
    )
    assert export.connection_properties(second)["target_lun"] == 300
    log_in(export)
    wait_until(lambda: len(snapshot().devices) == 2, "both disks")
    found = {int(d.hctl.split(":")[3]): wwid_of(d.name) for d in snapshot().devices}
    assert found == {1: f"naa.{first.wwid[1:]}", 300: f"naa.{second.wwid[1:]}"}
    lab.log_out()


def test_swapped_lun_shows_the_other_volume(lab: Lab, iscsid: Iscsid) -> None:
    old, new = lab.volume(), lab.volume()
    for volume, content in ((old, "old"), (new, "new")):
        with volume.file.open("r+b") as backing:
            backing.write(pattern(content))
    export = lab.export(old, lab.portals(1))
    device = device_path(log_in(export).devices[0])
    assert read_direct(device) == pattern("old")
    export.swap(1, new)
    assert read_direct(device) == pattern("new")
    lab.log_out()


def test_resized_volume_is_seen_after_a_rescan(lab: Lab, iscsid: Iscsid) -> None:
    volume = lab.volume(size_mib=16)
    export = lab.export(volume, lab.portals(1))
    name = log_in(export).devices[0]
    volume.resize(48)
    rescan(name)
    assert disk(name).sectors == 48 << 11
    lab.log_out()


def test_only_the_initiator_of_the_acl_may_log_in(lab: Lab, iscsid: Iscsid) -> None:
    portal = lab.portal(1)
    ours = lab.export(lab.volume(), [portal], access="only_us")
    theirs = lab.export(lab.volume(), [portal], access="not_us")
    log_in(ours)
    refused = login(portal, theirs.iqns[0])
    assert refused.returncode == 24, refused.stderr  # ISCSI_ERR_LOGIN_AUTH_FAILED
    lab.log_out()


@pytest.mark.parametrize("mutual", [False, True], ids=["one-way", "mutual"])
def test_chap(lab: Lab, iscsid: Iscsid, mutual: bool) -> None:
    portal = lab.portal(1)
    right = Chap("alice", "a-good-secret")
    wrong = Chap("alice", "not-the-secret")
    if mutual:
        right = Chap("alice", "a-good-secret", "target", "another-secret")
        wrong = Chap("alice", "a-good-secret", "target", "not-the-secret")
    export = lab.export(lab.volume(), [portal], chap=right)
    assert export.properties["auth_username"] == "alice"
    refused = login(portal, export.iqns[0], wrong)
    assert refused.returncode in (19, 24), refused.stderr
    assert not snapshot().sessions
    log_in(export)
    lab.log_out()


@pytest.mark.parametrize("mutual", [False, True], ids=["one-way", "mutual"])
def test_discovery_with_chap(lab: Lab, iscsid: Iscsid, mutual: bool) -> None:
    portal = lab.portal(1)
    chap = Chap("finder", "a-finders-secret")
    if mutual:
        chap = Chap("finder", "a-finders-secret", "target", "another-secret")
    export = lab.export(lab.volume(), [portal], discovery_chap=chap)
    discover = ("-m", "discoverydb", "-t", "sendtargets", "-p", str(portal))
    assert iscsiadm(*discover, "-o", "new").returncode == 0
    assert iscsiadm(*discover, "--discover").returncode != 0
    for key, value in chap.properties("auth").items():
        name = key.removeprefix("auth_").replace("method", "authmethod")
        setting = f"discovery.sendtargets.auth.{name}"
        assert iscsiadm(*discover, "-o", "update", "-n", setting, "-v", value).returncode == 0
    done = iscsiadm(*discover, "--discover")
    assert export.iqns[0] in done.stdout, done.stderr


def test_a_portal_at_a_chosen_address(lab: Lab, iscsid: Iscsid) -> None:
    portal = lab.portal_at("10.0.1.2")
    log_in(lab.export(lab.volume(), [portal]))
    assert snapshot().sessions[0].address == "10.0.1.2"
    lab.log_out()


def test_bare_targets_are_discovered_and_go_away(lab: Lab, iscsid: Iscsid) -> None:
    portals = [lab.portal(1), lab.portal(2, family=6)]
    names = lab.targets.bare_targets(3, portals)
    folder = Path("/sys/kernel/config/target/iscsi")
    assert {name for name in names if (folder / name).is_dir()} == set(names)
    done = iscsiadm("-m", "discovery", "-t", "sendtargets", "-p", str(portals[0]))
    assert all(done.stdout.count(name) == 2 for name in names), done.stdout + done.stderr
    lab.targets.delete()
    assert not [name for name in names if (folder / name).exists()]


def test_logical_volumes_are_not_taken_for_maps_of_the_initiator(
    lab: Lab, sample: Callable[..., SampleBackend]
) -> None:
    volume = sample(lab.portals(1)).create_volume("vol1")
    assert volume.path.resolve().name.startswith("dm-")
    assert snapshot().maps == ()


def test_the_sniffer_hears_logins(lab: Lab, iscsid: Iscsid) -> None:
    export = lab.export(lab.volume(), lab.portals(1), chap=Chap("alice", "a-good-secret"))
    with Sniffer() as wire:
        log_in(export)
    assert wire.find(rb"CHAP_N=(\w+)\0") == [b"alice"]
    assert set(wire.find(rb"CHAP_A=(\d+)\0")) == {b"5"}
    assert not wire.find(b"a-good-secret")
    lab.log_out()


# --- cut and heal -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reject", "drop"])
@pytest.mark.parametrize("family", [4, 6])
def test_cut_breaks_an_established_session_and_heal_mends_it(
    lab: Lab, iscsid: Iscsid, how: str, family: int
) -> None:
    portals = lab.portals(2, family)
    export = lab.export(lab.volume(), portals)
    cut, spared = (log_in(export, portal, **QUICK) for portal in range(2))
    lab.cut(portals[0], how)
    wait_until(lambda: state_of(cut.sid) == "FAILED", "the cut session failed", 30)
    with pytest.raises(OSError, match=r"Input/output error|No such device"):
        read_direct(device_path(cut.devices[0]))
    assert state_of(spared.sid) == "LOGGED_IN"
    assert len(read_direct(device_path(spared.devices[0]))) == BLOCK
    lab.heal(portals[0])
    wait_until(lambda: state_of(cut.sid) == "LOGGED_IN", "the session is back", 60)
    assert len(read_direct(device_path(cut.devices[0]))) == BLOCK
    lab.log_out()


def test_new_connections_are_refused_or_swallowed(lab: Lab, iscsid: Iscsid) -> None:
    portal = lab.portal(1)
    export = lab.export(lab.volume(), [portal])
    lab.cut(portal, "reject")
    assert login(portal, export.iqns[0], **QUICK).returncode != 0
    lab.cut(portal, "drop")
    began = time.monotonic()
    assert login(portal, export.iqns[0], **QUICK).returncode != 0
    assert time.monotonic() - began > 2  # nobody answered; login_timeout is 3
    lab.heal()
    log_in(export)
    lab.log_out()


# --- daemons ----------------------------------------------------------------------------------


@pytest.mark.parametrize("iscsid", ["direct", "socket"], indirect=True)
def test_both_ways_of_starting_iscsid(lab: Lab, iscsid: Iscsid) -> None:
    if iscsid.how == "socket":
        assert iscsid.listening and iscsid.pid is None
    export = lab.export(lab.volume(), lab.portals(1))
    log_in(export)
    first = iscsid.pid
    assert first
    iscsid.kill()
    assert iscsid.pid is None
    assert iscsid.listening == (iscsid.how == "socket")
    assert snapshot().sessions[0].state == "LOGGED_IN"  # the kernel keeps it
    iscsid.restart()
    lab.log_out()
    assert iscsid.pid not in (None, first)
    iscsid.stop()
    assert not iscsid.listening and iscsid.pid is None


def test_multipathd_is_on_or_off_as_asked(lab: Lab) -> None:
    daemon = lab.multipathd
    assert daemon.pid is None and not listening(MULTIPATHD_SOCKET)
    daemon.configure("off", user_friendly_names=True, defaults="    polling_interval 2")
    daemon.start()
    first = daemon.pid
    assert first
    config = daemon.command("show", "config", "local")
    assert 'find_multipaths "off"' in config and 'user_friendly_names "yes"' in config
    daemon.kill()
    assert daemon.pid is None and not listening(MULTIPATHD_SOCKET)
    # Asking a stopped daemon must not start it.
    run("multipathd", "show", "daemon", check=False)
    assert daemon.pid is None
    daemon.restart()
    assert daemon.pid not in (None, first)
    daemon.stop()
    assert daemon.pid is None and not listening(MULTIPATHD_SOCKET)


def test_multipathd_builds_a_map(lab: Lab, iscsid: Iscsid) -> None:
    lab.multipathd.configure("off")
    lab.multipathd.start()
    volume = lab.volume()
    export = lab.export(volume, lab.portals(2))
    for portal in range(2):
        log_in(export, portal)
    both = wait_until(
        lambda: next((m for m in snapshot().maps if len(m.members) == 2), None), "a map of 2", 60
    )
    assert (both.name, both.uuid, both.kind) == (volume.wwid, f"mpath-{volume.wwid}", "mpath")
    write_direct(device_path(both.device), pattern("map"))
    assert volume.file.read_bytes()[:BLOCK] == pattern("map")
    lab.settle()
    run("multipathd", "del", "map", volume.wwid)
    wait_until(lambda: not snapshot().maps, "the map is gone")
    lab.log_out()


def test_the_multipathd_fixture_does_what_its_parameter_says(
    multipathd: Multipathd, request: pytest.FixtureRequest
) -> None:
    assert (multipathd.pid is not None) == ("running" in request.node.name)


# --- the check at the end of every test -------------------------------------------------------


def test_a_leaked_session_and_disk_are_found_and_removed(lab: Lab, iscsid: Iscsid) -> None:
    victim = Lab(lab.network)
    export = lab.export(lab.volume(), lab.portals(1))
    log_in(export)
    found = leaks(victim._before, snapshot())
    assert [line.split(" left")[0] for line in found] == ["iSCSI session", "SCSI device"]
    iscsid.stop()
    victim.close()  # starts an iscsid of its own for it
    assert leaks(victim._before, snapshot()) == []


def test_a_leaked_map_and_semaphore_are_found_and_removed(lab: Lab) -> None:
    victim = Lab(lab.network)
    run("dmsetup", "create", "leaked", "--table", "0 8 error")
    run("ipcmk", "-S", "1")
    found = leaks(victim._before, snapshot())
    assert [line.split(" left")[0] for line in found] == ["dm map", "semaphore"]
    victim.close()
    assert leaks(victim._before, snapshot()) == []


def test_a_kernel_warning_is_found(lab: Lab) -> None:
    assert kernel_trouble(lab.klog()) == []
    with open("/dev/kmsg", "w") as kernel:
        # Without the newline the kernel keeps the record open, and unread, until the next one.
        kernel.write("<4>WARNING: CPU: 0 PID: 1 at lab/self_test.c:1 made up\n")
    assert len(kernel_trouble(lab.klog())) == 1
    assert len([line for line in lab.problems() if "made up" in line]) == 1
    lab.kernel_log.mark()


@pytest.mark.parametrize(
    "line",
    [
        "BUG: unable to handle page fault for address: 0000",
        "INFO: task iscsid:123 blocked for more than 120 seconds.",
        "Oops: 0000 [#1] PREEMPT SMP",
        "Call Trace:",
        "general protection fault: 0000",
    ],
)
def test_what_counts_as_kernel_trouble(line: str) -> None:
    assert kernel_trouble([line, "debugging is fine", "scsi host0: iSCSI Initiator"]) == [line]


@pytest.mark.parametrize(
    "first",
    [
        "statistics for priority 1: i 75 m 0 d 76 c 76",
        "WARNING: CPU: 1 PID: 4312 at arch/x86/kernel/traps.c:1120 exc_debug_kernel+0xca/0x160",
    ],
)
def test_warnings_that_are_nobodys(first: str) -> None:
    """They are left out, and nothing behind them."""
    warning = [
        "WARNING: CPU: 1 PID: 213 at block/mq-deadline.c:669 dd_exit_sched+0xd7/0xf0",
        "Call Trace:",
    ]
    end = "---[ end trace 0000000000000000 ]---"
    assert kernel_trouble([first, *warning, end, "BUG: bad"]) == ["BUG: bad"]
    assert kernel_trouble(warning) == warning
