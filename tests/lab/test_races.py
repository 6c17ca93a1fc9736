"""Races: several creators and removers of one volume's map at once.

After each round a call has done what it was to do, or says in an error that can be tried again what
came between; there is never a wrong map nor a half-made one. In the end the same calls succeed, and
nothing is left. LAB_RACES rounds in all, from LAB_SEED.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import manypath
from lab import Caller, Export, Iscsid, Lab, Multipathd, Outcome, Volume, dm, run
from lab.iscsiadm import forget_records, iscsiadm, login
from lab.network import Portal
from steps import (
    TIMEOUT,
    assert_marked,
    assert_nothing_left,
    assert_right_map,
    attach,
    detach,
    disks,
    mark,
)

TESTS = 9  # with their variants: LAB_RACES is for all of them
ROUNDS = -(-int(os.environ.get("LAB_RACES", "6")) // TESTS)
SEED = int(os.environ.get("LAB_SEED", "4"))
PATHS = 2
LEAD = 0.1  # seconds until a race begins, for the callers to get their orders
APART = 1.0  # seconds between the beginnings, at most: about what an attach takes here


@pytest.fixture
def callers(lab: Lab) -> Iterator[tuple[Caller, Caller]]:
    with Caller() as one, Caller() as other:
        yield one, other


class Rounds:
    """Counts what the calls of all rounds came to."""

    def __init__(self, name: str) -> None:
        self.random = random.Random(f"{SEED} {name}")
        self.counts: Counter[str] = Counter()
        self._name = name

    def __iter__(self) -> Iterator[int]:
        for number in range(ROUNDS):
            print(f"{self._name}: round {number}, {dict(self.counts)}")
            yield number

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Also checks that an error is one of a race: the same call may be tried again."""
        for outcome in outcomes:
            self.counts[outcome.word] += 1
            if outcome.error is not None:
                print(f"  {outcome.word}: {outcome.error['message']}")
                assert outcome.error["retryable"], outcome.error


@pytest.fixture
def rounds(
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Rounds]:
    counted = Rounds(request.node.name)
    yield counted
    counts = ", ".join(f"{word} {count}" for word, count in sorted(counted.counts.items()))
    record_property("rounds", ROUNDS)
    record_property("counts", counts)
    with capsys.disabled():
        print(f"\n{request.node.name}: {ROUNDS} rounds, seed {SEED}: {counts}")


def offer(lab: Lab, **options: Any) -> tuple[Volume, Export]:
    volume = lab.volume()
    mark(volume)
    return volume, lab.export(volume, lab.portals(PATHS), **options)


def at_once(rounds: Rounds, calls: Sequence[tuple[Caller, str, dict[str, Any]]]) -> list[Outcome]:
    """Begin the calls in any order, at most APART seconds from each other, and wait for them."""
    start = time.monotonic() + LEAD
    for caller, call, properties in calls:
        caller.begin(call, properties, start + rounds.random.uniform(0, APART), TIMEOUT)
    outcomes = [caller.outcome() for caller, _, _ in calls]
    rounds.count(outcomes)
    return outcomes


def assert_finished(lab: Lab) -> None:
    """No map is suspended, empty or without a table."""
    for found in lab.snapshot().maps:
        assert not found.suspended, f"{found} is suspended"
        assert found.members, f"{found} has no member"
        assert dm.table(found.uuid.removeprefix("mpath-")).groups


def assert_same_map(volume: Volume, outcomes: Sequence[Outcome]) -> None:
    """Those that attached have one device, which is the volume."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    assert {result["wwid"] for result in done} <= {volume.wwid}
    assert len({result["device"] for result in done}) <= 1
    for result in done:
        assert_marked(result["path"], volume)


def settle(lab: Lab, volume: Volume, export: Export) -> None:
    """The same calls succeed, and nothing is left.

    When multipathd adopts a map it loads a table of the paths that it knows by then, and takes the
    others back when udev has told it of them.
    """
    attachment = attach(export.properties)
    if lab.multipathd.listening:
        lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    assert_right_map(lab, volume, attachment.device, disks(attachment))
    detach(lab, export.properties)


def test_two_attach(
    lab: Lab,
    iscsid: Iscsid,
    multipathd: Multipathd,
    callers: tuple[Caller, Caller],
    rounds: Rounds,
) -> None:
    volume, export = offer(lab)
    for _ in rounds:
        outcomes = at_once(rounds, [(caller, "connect", export.properties) for caller in callers])
        assert_finished(lab)
        assert_same_map(volume, outcomes)
        assert len(lab.snapshot().sessions) == PATHS, "two sessions to one target"
        settle(lab, volume, export)


def test_one_attaches_and_one_detaches(
    lab: Lab,
    iscsid: Iscsid,
    multipathd: Multipathd,
    callers: tuple[Caller, Caller],
    rounds: Rounds,
) -> None:
    """Whoever comes last decides, and the other finds nothing half done."""
    volume, export = offer(lab)
    one, other = callers
    for _ in rounds:
        if rounds.random.random() < 0.5:
            attach(export.properties)
        outcomes = at_once(
            rounds,
            [(one, "connect", export.properties), (other, "disconnect", export.properties)],
        )
        assert_finished(lab)
        state = lab.snapshot()
        numbers = (len(state.sessions), len(state.devices), len(state.maps))
        if all(outcome.error is None for outcome in outcomes):
            whole = numbers in ((0, 0, 0), (PATHS, PATHS, 1))
            assert whole, json.dumps([outcome.result for outcome in outcomes], indent=1)
        rounds.counts[f"then {numbers[2]} maps"] += 1
        settle(lab, volume, export)


def test_two_volumes_of_one_target_crosswise(
    lab: Lab,
    iscsid: Iscsid,
    multipathd: Multipathd,
    callers: tuple[Caller, Caller],
    rounds: Rounds,
) -> None:
    """They share sessions: who detaches one must not log out from under who attaches the other."""
    volumes = [lab.volume(), lab.volume()]
    for volume in volumes:
        mark(volume)
    export = lab.export(volumes, lab.portals(PATHS), shape="shared")
    places = [export.connection_properties(volume) for volume in volumes]
    one, other = callers
    assert one.call("connect", places[0]).error is None
    for number, come in zip(rounds, itertools.cycle((1, 0)), strict=False):
        going, coming = places[1 - come], places[come]
        outcomes = at_once(rounds, [(one, "disconnect", going), (other, "connect", coming)])
        assert [outcome.error for outcome in outcomes] == [None, None], f"round {number}"
        assert_finished(lab)
        assert_same_map(volumes[come], outcomes[1:])
        maps = [found.uuid for found in lab.snapshot().maps]
        assert maps == [f"mpath-{volumes[come].wwid}"]
        assert len(lab.snapshot().devices) == PATHS
    for place in places:
        manypath.disconnect(place, timeout=TIMEOUT)
    assert_nothing_left(lab)


def test_a_greedy_multipathd(
    lab: Lab, iscsid: Iscsid, callers: tuple[Caller, Caller], rounds: Rounds
) -> None:
    """It makes a map of any disk that it sees. Some disks it sees first: those that iscsiadm, which
    scans by itself, has logged in to.
    """
    lab.multipathd.configure("greedy")
    lab.multipathd.start()
    volume, export = offer(lab)
    with ThreadPoolExecutor(1) as pool:
        for _ in rounds:
            ahead = rounds.random.randrange(PATHS + 1)
            for portal, iqn in zip(export.portals[:ahead], export.iqns[:ahead], strict=True):
                pool.submit(login, portal, iqn)
            outcomes = at_once(rounds, [(callers[0], "connect", export.properties)])
            pool.submit(forget_records).result()  # after the logins
            rounds.counts[f"{ahead} ahead"] += 1
            assert_finished(lab)
            assert_same_map(volume, outcomes)
            settle(lab, volume, export)


# --- beside the incumbent -------------------------------------------------------------------


def incumbent_attaches(lab: Lab, volume: Volume, export: Export) -> None:
    """What os-brick does with the same programs: records, logins without a scan, a scan by sysfs;
    then multipath and multipathd are told.
    """
    for portal, iqn in zip(export.portals, export.iqns, strict=True):
        log_in_without_scan(portal, iqn)
    for session in lab.snapshot().sessions:
        scan(session.sid)
    for device in lab.snapshot().devices:
        run("multipath", "-a", volume.wwid, check=False)
        run("multipathd", "add", "path", f"/dev/{device.name}", check=False)


def log_in_without_scan(portal: Portal, iqn: str) -> None:
    """Whatever comes of it: the other one may be at the same session."""
    node = ("-m", "node", "-T", iqn, "-p", str(portal))
    iscsiadm(*node, "-o", "new")
    iscsiadm(*node, "-o", "update", "-n", "node.session.scan", "-v", "manual")
    iscsiadm(*node, "--login")


def scan(sid: int, lun: int = 1) -> None:
    """Through the session's host, whose target and channel are 0."""
    session = Path(f"/sys/class/iscsi_session/session{sid}").resolve()
    host = next(part for part in session.parts if part.startswith("host"))
    Path(f"/sys/class/scsi_host/{host}/scan").write_text(f"0 0 {lun}")


def test_beside_the_incumbent(
    lab: Lab,
    iscsid: Iscsid,
    multipathd: Multipathd,
    callers: tuple[Caller, Caller],
    rounds: Rounds,
) -> None:
    volume, export = offer(lab)
    with ThreadPoolExecutor(1) as pool:
        for _ in rounds:
            incumbent = pool.submit(incumbent_attaches, lab, volume, export)
            outcomes = at_once(rounds, [(callers[0], "connect", export.properties)])
            incumbent.result()
            forget_records()
            assert_finished(lab)
            assert_same_map(volume, outcomes)
            settle(lab, volume, export)
