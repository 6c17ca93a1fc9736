"""Verified I/O on the map while paths, daemons and the size change: no error, no wrong byte, as
long as one path is alive at each moment.

LAB_IO_SECONDS is how long that goes on with multipathd stopped, and again with it running.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import manypath
from lab import Export, Iscsid, Lab, Multipathd, ScsiDevice, Volume, run, wait_until
from lab import verified_io as program

SECONDS = float(os.environ.get("LAB_IO_SECONDS", "30"))
TIMEOUT = 60.0
MIB = 1 << 20
SIZE = 64  # MiB, at first
GROWTH = 16
RECOVERY = 180.0  # until a path works again: iscsid reconnects now and then, checkers poll
# Until a portal that is gone shows as a failed path: iscsid's NOP-Outs first have to go unanswered,
# then the replacement_timeout. An iscsid that was restarted gives its sessions the default
# of 120 s, which only multipathd sets back to 5 s.
SHOWN = 180.0


@contextmanager
def verified_io(device: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", program.__file__, device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None and running.stdout.readline() == b"begun\n"
            yield running
        finally:
            running.kill()


def findings(running: subprocess.Popen[bytes]) -> dict[str, Any]:
    """End the program; what it found."""
    output, _ = running.communicate(timeout=RECOVERY)
    found: dict[str, Any] = json.loads(output)
    return found


# --- the checker itself ---------------------------------------------------------------------------


SPOILT = 16  # blocks


def written(file: Path) -> Iterator[tuple[int, int]]:
    """Offset and generation of each block of the program."""
    with file.open("rb") as backing:
        for offset in range(0, file.stat().st_size, program.BLOCK):
            backing.seek(offset)
            magic, _, generation = program.HEADER.unpack(backing.read(program.HEADER.size))
            if magic == program.MAGIC:
                yield offset, generation


def spoil(file: Path) -> None:
    """Flip a byte of some blocks, turn others back to the generation before."""
    blocks = list(written(file))[:SPOILT]
    with file.open("r+b") as backing:
        for number, (offset, generation) in enumerate(blocks):
            data = bytearray(program.block(offset, generation - number % 2))
            data[-1] ^= 1 - number % 2
            backing.seek(offset)
            backing.write(data)


def test_wrong_bytes_behind_its_back_are_found(lab: Lab, iscsid: Iscsid) -> None:
    volume = lab.volume(SIZE)
    properties = lab.export(volume, lab.portals(2)).properties
    attachment = manypath.connect(properties, timeout=TIMEOUT)
    with verified_io(attachment.path) as running:
        wait_until(lambda: len(list(written(volume.file))) > 4 * SPOILT, "blocks are written", 60)
        running.send_signal(signal.SIGSTOP)
        spoil(volume.file)
        assert running.stdin is not None
        running.stdin.close()  # it is to end: few of them are written again before it does
        running.stdin = None
        running.send_signal(signal.SIGCONT)
        found = findings(running)
    manypath.disconnect(properties, timeout=TIMEOUT)
    assert found["errors"] == 0
    assert found["wrong"] >= SPOILT // 2
    text = " ".join(found["examples"])
    assert "torn" in text and re.search(r"generation \d+ of offset \d+, wanted", text)


def test_errors_are_found(lab: Lab, iscsid: Iscsid) -> None:
    """No path is left: the map has nowhere to go, and says so."""
    export = lab.export(lab.volume(SIZE), lab.portals(2))
    attachment = manypath.connect(export.properties, timeout=TIMEOUT)
    with verified_io(attachment.path) as running:
        for portal in export.portals:
            lab.cut(portal, "reject")
        wait_until(lambda: paths_of(attachment.device) == "FF", "no path is left", SHOWN)
        found = findings(running)
    lab.heal()
    assert found["errors"] > 0
    wait_until_logged_in(lab, 2)
    for device in lab.snapshot().devices:  # whether or not somebody else does
        run(
            "dmsetup",
            "message",
            f"/dev/{attachment.device}",
            "0",
            "reinstate_path",
            number_of(device),
        )
    manypath.disconnect(export.properties, timeout=TIMEOUT)


# --- what happens meanwhile -----------------------------------------------------------------------


def paths_of(device: str) -> str:
    """The states that device-mapper has of the map's paths: A or F each."""
    status = run("dmsetup", "status", f"/dev/{device}")
    return "".join(sorted(re.findall(r"\d+:\d+ ([AF]) ", status)))


def number_of(device: ScsiDevice) -> str:
    """As device-mapper writes it, 8:16."""
    return Path(f"/sys/block/{device.name}/dev").read_text().strip()


def wait_until_logged_in(lab: Lab, count: int) -> None:
    def logged_in() -> bool:
        states = [session.state for session in lab.snapshot().sessions]
        return states == ["LOGGED_IN"] * count

    wait_until(logged_in, "all sessions are logged in", RECOVERY)


@dataclass
class Trouble:
    """What is done to the paths of a map, one after the other."""

    lab: Lab
    export: Export
    volume: Volume
    device: str
    turn: int = 0
    done: list[str] = field(default_factory=list)

    def whole(self) -> None:
        """Every path works, so that the next may be taken away."""
        count = len(self.export.portals)
        wait_until_logged_in(self.lab, count)
        wait_until(lambda: paths_of(self.device) == "A" * count, "every path works", RECOVERY)

    def _cut(self, how: str) -> None:
        self.turn += 1
        portal = self.export.portals[self.turn % len(self.export.portals)]
        self.lab.cut(portal, "drop" if how == "drop" else "reject")
        wait_until(lambda: "F" in paths_of(self.device), "the path fails", SHOWN)

    def portal_refuses(self) -> None:
        self._cut("reject")
        self.lab.heal()

    def portal_is_silent(self) -> None:
        self._cut("drop")
        self.lab.heal()

    def iscsid_is_killed(self) -> None:
        self.lab.iscsid.kill()
        self.lab.iscsid.restart()

    def portal_refuses_without_iscsid(self) -> None:
        self.lab.iscsid.kill()
        self._cut("reject")
        self.lab.heal()
        self.lab.iscsid.restart()

    def multipathd_restarts(self) -> None:
        if self.lab.multipathd.pid:
            self.lab.multipathd.restart()

    def volume_grows(self) -> None:
        size = self.volume.size // MIB + GROWTH
        self.volume.resize(size)
        extension = manypath.extend(self.export.properties, size=size * MIB, timeout=TIMEOUT)
        assert extension.size_bytes == size * MIB
        assert extension.warnings == ()

    def everything(self) -> Iterator[Callable[[], None]]:
        """Over and over. The two runs begin at different places, so that short ones differ."""
        events = [
            self.portal_refuses,
            self.volume_grows,
            self.iscsid_is_killed,
            self.multipathd_restarts,
            self.portal_is_silent,
            self.portal_refuses_without_iscsid,
        ]
        at = 3 if self.lab.multipathd.pid else 0
        while True:
            yield events[at % len(events)]
            at += 1


def test_no_error_and_no_wrong_byte(
    lab: Lab,
    iscsid: Iscsid,
    multipathd: Multipathd,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    volume = lab.volume(SIZE)
    export = lab.export(volume, lab.portals(2))
    attachment = manypath.connect(export.properties, timeout=TIMEOUT, min_paths=2)
    lab.settle()
    trouble = Trouble(lab, export, volume, attachment.device)
    with verified_io(attachment.path) as running:
        deadline = time.monotonic() + SECONDS
        for event in trouble.everything():
            event()
            trouble.done.append(event.__name__)
            trouble.whole()
            if time.monotonic() >= deadline:
                break
        found = findings(running)
    record_property("events", ", ".join(trouble.done))
    record_property("found", found)
    with capsys.disabled():
        print(f"\n{len(trouble.done)} events; {found}")
    manypath.disconnect(export.properties, timeout=TIMEOUT)
    assert (found["errors"], found["wrong"]) == (0, 0), found["examples"]
    assert min(found["writes"], found["reads"]) > 100
