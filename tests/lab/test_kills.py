"""The SIGKILL sweep: a process is killed at every fault point of attach, detach and extend, and at
random times; the same call afterwards succeeds, and nothing is left.

LAB_KILLS is the number of kills with multipathd stopped, and again with it running; 0 is one at
each passing of each point, and half as many at random times. LAB_KILL repeats kills by name.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Iscsid, Lab, Multipathd
from lab.interrupted import CALLS, Interrupted, passed_points, spread

KILLS = int(os.environ.get("LAB_KILLS", "8"))
NAMED = os.environ.get("LAB_KILL", "")
SEED = int(os.environ.get("LAB_SEED", "4"))

Kill = tuple[str, str]  # the call, and the passing of a fault point or the seconds after its begin


def name_of(kill: Kill) -> str:
    return "@".join(kill)


def plan(points: dict[str, list[str]], seconds: dict[str, float], kills: int) -> list[Kill]:
    """A seeded choice: three quarters at points, each once at most, the rest at random times."""
    chance = random.Random(SEED)
    shuffled = {call: chance.sample(passed, len(passed)) for call, passed in points.items()}
    at_points = spread(shuffled)
    if kills:
        at_points = at_points[: kills - kills // 4]
    count = kills - len(at_points) if kills else len(at_points) // 2
    calls = list(seconds)
    times = [
        (call, f"{chance.uniform(0, seconds[call]):.3f}")
        for call in (calls[turn % len(calls)] for turn in range(count))
    ]
    return at_points + times


def strike(target: Interrupted, kill: Kill) -> str:
    """Prepare, kill, do it again; returns how the victim ended."""
    call, where = kill
    target.prepare(call)
    if ":" in where:
        victim = target.start(call, fault=f"{where}=kill")
    else:
        victim = target.start(call)
        time.sleep(float(where))  # the random moment
        victim.kill()
    status = victim.ends()
    target.finish(call)
    return "killed" if status == -9 else f"ended before, status {status}"


@pytest.fixture
def target(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> Interrupted:
    return Interrupted(lab)


def test_the_same_call_goes_on_after_a_kill(
    target: Interrupted,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    if NAMED:
        kills = [(call, where) for call, where in (name.split("@") for name in NAMED.split(","))]
    else:
        kills = plan(*passed_points(target, tmp_path, CALLS), KILLS)
    outcomes: Counter[str] = Counter()
    failures = []
    for kill in kills:
        begin = time.monotonic()
        try:
            outcome = strike(target, kill)
        except AssertionError as error:
            outcome = "failed"
            failures.append(f"{name_of(kill)}: {error}")
            if left := target.clear():
                failures.append(f"not cleared: {left}")
                break
        outcomes[f"{kill[0]} {outcome}"] += 1
        print(f"{name_of(kill)}: {outcome}, {time.monotonic() - begin:.1f} s")
    record_property("kills", sum(outcomes.values()))
    with capsys.disabled():
        print(f"\n{len(kills)} kills:", dict(sorted(outcomes.items())))
    assert failures == []


def test_the_sweep_would_notice(lab: Lab, iscsid: Iscsid) -> None:
    """A round that leaves something behind fails."""
    target = Interrupted(lab)
    other = lab.export(lab.volume(), lab.portals(1))
    target.prepare("detach")
    target.victims.call("connect", other.properties)
    with pytest.raises(AssertionError, match="left behind"):
        target.finish("detach")
    target.victims.call("disconnect", other.properties)
