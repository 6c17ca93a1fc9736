"""Two processes on one target: the session of one never goes because of the other."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from lab import Iscsid, Lab
from lab.blockdev import pattern, read_direct, write_direct
from lab.interrupted import PATHS, Interrupted
from lab.victims import Victims

ROUNDS = 20
RUNTIME = Path("/run/manypath")

WORKER = """
import json, sys, manypath
for line in sys.stdin:
    what, properties = json.loads(line)
    try:
        done = getattr(manypath, what)(properties, timeout=60)
        paths = [str(path.error or path.state) for path in getattr(done, "paths", ())]
        print(json.dumps([getattr(done, "path", ""), paths, list(done.warnings)]), flush=True)
    except manypath.ManypathError as error:
        print(json.dumps(["error", [str(error)], []]), flush=True)
"""


class Worker:
    """A process that does what it is told, one call after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, what: str, properties: dict[str, Any]) -> None:
        pipe: IO[str] | None = self._process.stdin
        assert pipe is not None
        pipe.write(json.dumps([what, properties]) + "\n")
        pipe.flush()

    def end(self) -> tuple[str, list[str], list[str]]:
        assert self._process.stdout is not None
        device, paths, warnings = json.loads(self._process.stdout.readline())
        return device, paths, warnings

    def call(self, what: str, properties: dict[str, Any]) -> tuple[str, list[str], list[str]]:
        self.begin(what, properties)
        return self.end()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def workers() -> Iterator[tuple[Worker, Worker]]:
    made = Worker(), Worker()
    yield made
    for worker in made:
        worker.kill()


def test_attach_while_another_process_detaches(
    lab: Lab,
    iscsid: Iscsid,
    workers: tuple[Worker, Worker],
    record_property: Callable[[str, object], None],
) -> None:
    """The last LUN of a session goes while a new one comes: the logout must not win over it,
    nor may two logins make two sessions.
    """
    volumes = [lab.volume(), lab.volume()]
    export = lab.export(volumes, lab.portals(2), shape="shared")
    properties = [export.connection_properties(volume) for volume in volumes]
    assert workers[0].call("connect", properties[0])[1] == ["active"] * 2
    kept = 0
    for number in range(ROUNDS):
        old, new = number % 2, (number + 1) % 2
        before = {session.sid for session in lab.snapshot().sessions}
        workers[old].begin("disconnect", properties[old])
        workers[new].begin("connect", properties[new])
        device, paths, warnings = workers[new].end()
        gone = workers[old].end()
        assert paths == ["active"] * 2, f"round {number}"
        assert not [text for text in warnings if "multipathd" not in text], f"round {number}"
        assert gone[0] != "error", f"round {number}: {gone}"
        sessions = lab.snapshot().sessions
        assert [session.state for session in sessions] == ["LOGGED_IN"] * 2, f"round {number}"
        kept += len(before & {session.sid for session in sessions})
        assert len(read_direct(device)) == 4096
    last = ROUNDS % 2
    assert workers[last].call("disconnect", properties[last])[0] != "error"
    assert not lab.snapshot().sessions
    assert not list(RUNTIME.iterdir())
    record_property("rounds", ROUNDS)
    record_property("sessions kept", f"{kept} of {2 * ROUNDS}")


def test_two_attaches_make_one_session(
    lab: Lab, iscsid: Iscsid, workers: tuple[Worker, Worker]
) -> None:
    volumes = [lab.volume(), lab.volume()]
    export = lab.export(volumes, lab.portals(2), shape="shared")
    properties = [export.connection_properties(volume) for volume in volumes]
    for number in range(ROUNDS // 2):
        for worker, item in zip(workers, properties, strict=True):
            worker.begin("connect", item)
        assert [worker.end()[1] for worker in workers] == [["active"] * 2] * 2, f"round {number}"
        assert len(lab.snapshot().sessions) == 2, f"round {number}"
        for worker, item in zip(workers, properties, strict=True):
            worker.begin("disconnect", item)
        for worker in workers:
            done = worker.end()
            assert done[0] != "error", f"round {number}: {done}"
        assert not lab.snapshot().sessions, f"round {number}"


def test_a_killed_process_leaves_no_lock(
    lab: Lab, iscsid: Iscsid, workers: tuple[Worker, Worker]
) -> None:
    """In the middle of an attach, which has the locks: the same call in another process goes on."""
    properties = lab.export(lab.volume(), lab.portals(2)).properties
    for delay in (0.05, 0.2, 0.4):
        victim = Worker()
        victim.call("disconnect", properties)  # it runs by now
        victim.begin("connect", properties)
        with pytest.raises(subprocess.TimeoutExpired):
            victim._process.wait(delay)
        victim.kill()
        assert workers[0].call("connect", properties)[1] == ["active"] * 2
        workers[0].call("disconnect", properties)
        assert not lab.snapshot().sessions


# --- one process is stopped at the worst moment -------------------------------------------------


@pytest.fixture
def target(lab: Lab, iscsid: Iscsid) -> Interrupted:
    return Interrupted(lab)


@pytest.fixture
def others(lab: Lab) -> Victims:
    """Processes beside those of the target."""
    return lab.keep(Victims())


def works(target: Interrupted, device: str, paths: int) -> None:
    """The volume's map has that many members, and a write to it arrives at the storage."""
    (dm,) = target.lab.snapshot().maps
    assert (dm.device, dm.uuid) == (device, f"mpath-{target.volume.wwid}")
    assert len(dm.members) == paths
    data = pattern(device)
    write_direct(f"/dev/{device}", data)
    with target.volume.file.open("rb") as backing:
        assert backing.read(len(data)) == data


def test_killed_after_its_scan_while_another_attaches(target: Interrupted, others: Victims) -> None:
    """What it had scanned is the other one's by now."""
    victim = target.start("attach", fault=f"attach.identity_read:{PATHS}=stop")
    assert victim.stops()
    attached = others.call("connect", target.properties, min_paths=PATHS)
    victim.kill()
    assert victim.ends() == -9
    works(target, attached["device"], PATHS)
    target.finish("attach")


def test_undone_after_its_scan_while_another_attaches(target: Interrupted, others: Victims) -> None:
    """It wanted two paths, got one, and is about to delete the disk that the other one now uses."""
    target.prepare("undo")
    victim = target.start("undo", fault="attach.undo_delete:1=stop")
    assert victim.stops()
    attached = others.call("connect", target.properties)
    victim.go_on()
    answer = victim.returns()
    assert answer is not None and answer.error is not None
    assert victim.ends() == 0
    works(target, attached["device"], PATHS - 1)
    target.finish("undo")


@pytest.mark.parametrize("end", ["goes on", "killed"])
def test_stopped_at_a_logout_while_another_attaches(
    target: Interrupted, others: Victims, end: str
) -> None:
    """It has the locks of all sessions, and is about to log them out: the other one waits."""
    target.prepare("detach")
    victim = target.start("detach", fault=f"session.locked:{PATHS}=stop")
    assert victim.stops()
    attach = others.start("connect", target.properties, min_paths=PATHS, timeout=60.0)
    with pytest.raises(AssertionError, match="not answered"):
        attach.returns(timeout=5.0)
    assert not target.lab.snapshot().maps
    if end == "killed":
        victim.kill()
    else:
        victim.go_on()
    answer = attach.returns()
    assert answer is not None and answer.result is not None, answer
    assert attach.ends() == 0
    victim.ends()
    works(target, answer.result["device"], PATHS)
    target.finish("attach")


def test_killed_in_a_logout_and_attached_at_once(
    target: Interrupted, others: Victims, record_property: Callable[[str, object], None]
) -> None:
    """The locks are free and iscsid still logs out: what is attached then is not lost with it."""
    kept = 0
    for _ in range(3):
        target.prepare("detach")
        before = {session.sid for session in target.lab.snapshot().sessions}
        victim = target.start("detach", fault=f"iscsid.request_sent:{PATHS}=kill")
        assert victim.ends() == -9
        attached = others.call("connect", target.properties, min_paths=PATHS, timeout=60.0)
        kept += len(before & {session.sid for session in target.lab.snapshot().sessions})
        works(target, attached["device"], PATHS)
        target.finish("attach")
    record_property("sessions kept", kept)
