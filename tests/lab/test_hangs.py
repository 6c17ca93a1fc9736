"""The hung-path sweep: a portal, or all of them, falls silent at every fault point of attach,
detach and extend. The call returns within its timeout and a second, with a result or a clear error;
nothing of it hangs in the kernel ten seconds later; once the portals are back the same call works.

LAB_HANGS is the number of hangs with multipathd stopped, and again with it running; 0 is each
point, at one of its passings, for one portal and for all. LAB_HANG repeats hangs by name.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Answer, Iscsid, Lab, Multipathd, Victim, blocked_threads, wait_until
from lab.interrupted import Interrupted, passed_points, spread, wait_until_back

HANGS = int(os.environ.get("LAB_HANGS", "4"))
NAMED = os.environ.get("LAB_HANG", "")
SEED = int(os.environ.get("LAB_SEED", "4"))

TIMEOUTS = (5.0, 8.0)  # seconds, of the interrupted call
LATE = 1.0  # what it may take longer
STUCK = 10.0  # how long after its return a thread of it may still hang in the kernel
# Or after the cut: the kernel holds a command until its pings (5 + 5 s) and the session's time for
# recovery (5 s) tell that the portal is gone, and nobody can call that off.
KERNEL = 17.0

Hang = tuple[str, str, str]  # the call, the passing of a fault point, "one" portal or "all"


def plan(points: dict[str, list[str]], hangs: int) -> list[Hang]:
    """A seeded choice; all points if ``hangs`` is 0."""
    chance = random.Random(SEED)
    shuffled = {call: chance.sample(passed, len(passed)) for call, passed in points.items()}
    if not hangs:  # one passing of each
        shuffled = {
            call: list({point.partition(":")[0]: point for point in passed}.values())
            for call, passed in shuffled.items()
        }
    chosen = [(call, point, which) for which in ("all", "one") for call, point in spread(shuffled)]
    return chance.sample(chosen, len(chosen))[: hangs or None]


def returns_in_time(victim: Victim, timeout: float) -> Answer:
    """Counted from when the call began; that it stood still does not count against it."""
    answer = victim.returns(timeout + LATE + 30)
    assert answer is not None, "the process ended without an answer"
    assert answer.seconds <= timeout + LATE, f"{answer.seconds:.1f} s of {timeout:g}: {answer}"
    assert answer.error is None or answer.message, answer
    return answer


def hang(target: Interrupted, case: Hang, timeout: float) -> str:
    """One round; returns what the interrupted call came to."""
    call, point, which = case
    target.prepare(call)
    victim = target.start(call, fault=f"{point}=stop", timeout=timeout)
    if not victim.stops():
        target.finish(call)
        return "did not pass the point"
    portals = target.export.portals
    for portal in portals if which == "all" else portals[:1]:
        target.lab.cut(portal, "drop")
    cut = time.monotonic()
    victim.go_on()
    answer = returns_in_time(victim, timeout)
    patience = max(STUCK, cut + KERNEL - time.monotonic())
    wait_until(lambda: not blocked_threads(victim.pid), "no thread of it in state D", patience)
    target.lab.heal()
    victim.ends()
    wait_until_back(target.lab)
    target.finish(call)
    return answer.error or "succeeded"


@pytest.fixture
def target(lab: Lab, iscsid: Iscsid, multipathd: Multipathd) -> Interrupted:
    return Interrupted(lab)


def test_a_portal_falls_silent_during_a_call(
    target: Interrupted,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    if NAMED:
        names = (name.split("@") for name in NAMED.split(","))
        cases = [(call, point, which) for call, point, which in names]
    else:
        points, _ = passed_points(target, tmp_path, ("attach", "detach", "extend"))
        cases = plan(points, HANGS)
    outcomes: Counter[str] = Counter()
    failures = []
    for turn, case in enumerate(cases):
        begin = time.monotonic()
        try:
            outcome = hang(target, case, TIMEOUTS[turn % len(TIMEOUTS)])
        except AssertionError as error:
            outcome = "failed"
            failures.append(f"{'@'.join(case)}: {error}")
            target.lab.heal()
            if left := target.clear():
                failures.append(f"not cleared: {left}")
                break
        outcomes[f"{case[0]} {outcome}"] += 1
        print(f"{'@'.join(case)}: {outcome}, {time.monotonic() - begin:.1f} s")
    record_property("hangs", sum(outcomes.values()))
    with capsys.disabled():
        print(f"\n{len(cases)} hangs:", dict(sorted(outcomes.items())))
    assert failures == []
