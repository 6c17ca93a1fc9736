"""`make demo`: the main job, shown. Runs in the lab's guest.

The sample backend makes a logical volume and exports it through four portals. The volume is
attached, written and read back through each path, loses a portal under I/O, gets it back, and is
detached.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import manypath
from backend import SampleBackend, volume_group
from lab import Lab, load_target, run, wait_until
from lab.blockdev import device_path, pattern, read_direct, write_direct
from manypath import cli

MIB = 1 << 20
DATA_MIB = 64
CHUNK = 4 * MIB


def say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def show(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2), flush=True)


def without_secrets(answer: dict[str, Any]) -> dict[str, Any]:
    data = {key: "..." if "password" in key else value for key, value in answer["data"].items()}
    return {**answer, "data": data}


def command(*arguments: str) -> None:
    """The command line tool, in this process."""
    print(f"$ manypath {' '.join(arguments)}", flush=True)
    status = cli.main(list(arguments))
    if status:
        sys.exit(status)


class Load(threading.Thread):
    """Writes and reads back through the map until it is stopped; remembers the first error."""

    def __init__(self, device: str) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.rounds = 0
        self.error: Exception | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                data = pattern(f"round {self.rounds}", 64 * 1024)
                write_direct(self.device, data, offset=DATA_MIB * MIB)
                back = read_direct(self.device, offset=DATA_MIB * MIB, length=len(data))
                assert back == data, "other bytes came back than were written"
                self.rounds += 1
        except (OSError, AssertionError) as error:
            self.error = error

    def finish(self) -> None:
        self._ended.set()
        self.join()
        if self.error:
            raise self.error

    def must_go_on(self, rounds: int) -> None:
        """Wait until so many more rounds are done."""
        goal = self.rounds + rounds
        wait_until(lambda: self.error or self.rounds >= goal, "I/O goes on", 120)
        if self.error:
            raise self.error


def write_and_compare(map_path: str, paths: list[str]) -> None:
    chunks = {offset: os.urandom(CHUNK) for offset in range(0, DATA_MIB * MIB, CHUNK)}
    for offset, data in chunks.items():
        write_direct(map_path, data, offset)
    for path in paths:
        for offset, data in chunks.items():
            if read_direct(device_path(path), offset, CHUNK) != data:
                sys.exit(f"{path} gave other bytes at {offset} than were written to {map_path}")
        print(f"   {path}: the same {DATA_MIB} MiB", flush=True)


def demo(lab: Lab, group: str) -> None:
    lab.iscsid.start()
    lab.multipathd.start()
    portals = lab.portals(4)
    backend = lab.keep(SampleBackend(portals[0], portals[1:], volume_group=group))
    volume = backend.create_volume("volume-1", DATA_MIB + 16)

    say("The host tells who it is: its connector")
    # The guest has no default route that would tell its address.
    connector = manypath.connector_properties(multipath=True, ip=portals[0].address)
    show(connector)

    say("The sample backend answers initialize_connection")
    answer = backend.initialize_connection(volume, connector)
    show(without_secrets(answer))
    request = Path(tempfile.mkdtemp()) / "volume.json"  # readable by us only: it has the secret
    request.write_text(json.dumps(answer))

    say("Attach the volume over its four portals")
    command("connect", str(request))
    command("list")
    (dm,) = lab.snapshot().maps
    device = f"/dev/{dm.device}"

    say(f"Write {DATA_MIB} MiB through {device}, read them back through every single path")
    write_and_compare(device, sorted(dm.members))

    say("Cut one portal while the volume is written and read")
    wait_until(lambda: len(lab.snapshot().maps[0].members) == 4, "multipathd has adopted the map")
    load = Load(device)
    load.start()
    load.must_go_on(5)
    lab.cut(portals[1])
    begun = time.monotonic()
    load.must_go_on(20)
    wait_until(lambda: lab.multipathd.command("show", "paths").count("failed"), "a path fails", 60)
    command("list")
    print(f"   no I/O error in {time.monotonic() - begun:.1f} s without that portal")

    say("Heal it")
    lab.heal()
    active = lambda: lab.multipathd.command("show", "paths").count("active ready") == 4  # noqa: E731
    wait_until(active, "all four paths are active again", 90)
    load.must_go_on(5)
    load.finish()
    command("list")
    print(f"   {load.rounds} rounds of write and read back, no error")

    say("Detach")
    command("disconnect", str(request))
    left = lab.snapshot()
    if left.sessions or left.devices or left.maps:
        sys.exit(f"something is left: {left}")
    print("   nothing is left: no session, no SCSI device, no map")

    say("The sample backend lets the host in no more: terminate_connection")
    backend.terminate_connection(volume, connector)
    backend.delete_volume(volume)
    print("   nothing is left there either: no ACL, no target, no logical volume")


def main() -> None:
    load_target()
    run("udevadm", "settle", "--timeout=60")
    lab = Lab()
    with volume_group() as group:
        try:
            demo(lab, group)
            problems = lab.problems()
        finally:
            lab.close()
    if problems:
        sys.exit("left behind:\n  " + "\n  ".join(problems))


if __name__ == "__main__":
    main()
