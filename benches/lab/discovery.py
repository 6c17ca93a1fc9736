#!/usr/bin/env python3
"""Discovery and attach of four portals: manypath beside iscsiadm, in one boot of the lab's guest.

Runs in the guest, on the stage that ``benches/lab/host.py`` makes:

    tests/lab/boot.py run --stage build/bench/stage --results build/bench/results --timeout 3600
        -- python3 /stage/bench/discovery.py [--rounds N] [--portals N] [--multipathd]

The sample backend names one portal of a shared target. manypath finds the others and builds the
map; iscsiadm runs ``-m discovery`` and one ``--login`` for each portal, one after the other or all
at once, and builds no map. Who goes first changes from round to round. The single figures are
printed as JSON and written to discovery.json in the results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest import MODULES, RESULTS, Side, describe_guest, make_quiet

from backend import SampleBackend
from lab import Lab, Network, load_target, processes_created, run, snapshot, wait_until
from lab.iscsiadm import forget_records
from lab.target import INITIATOR

HERE = Path(__file__).resolve().parent
ROUNDS = 7
SIZE_MIB = 64
WARM_UP = 1
COLUMNS = {
    "returned": "ms to return",
    "disks": "ms to disks",
    "processes": "processes",
    "settled": "until udev is done",
}


@dataclass
class Way:
    """One way to get at the volume, how to undo it, and what was measured."""

    name: str
    attach: Callable[[], object]
    undo: Callable[[], object]
    runs: list[dict[str, float]] = field(default_factory=list)

    def median(self, key: str) -> float:
        return statistics.median(one[key] for one in self.runs)


# --- iscsiadm -------------------------------------------------------------------------------------


def discover(portal: str) -> list[list[str]]:
    """A login command for each record that ``iscsiadm -m discovery`` has made."""
    lines = run("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal).splitlines()
    found = [line.split() for line in lines]
    return [
        ["iscsiadm", "-m", "node", "-T", iqn, "-p", where.partition(",")[0], "--login"]
        for where, iqn in found
    ]


def one_by_one(portal: str) -> None:
    for command in discover(portal):
        run(*command)


def at_once(portal: str) -> None:
    commands = discover(portal)
    logins = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
    statuses = [login.wait(120) for login in logins]
    if any(statuses):
        raise AssertionError(f"the logins ended with {statuses}")


def log_out(lab: Lab) -> None:
    for dm in snapshot().maps:  # multipathd may have built one
        run("multipathd", "del", "map", dm.name, check=False)
    lab.log_out()
    forget_records()


# --- measuring ------------------------------------------------------------------------------------


def wait_for_disks(count: int) -> None:
    def ready() -> bool:
        devices = snapshot().devices
        return len(devices) == count and all(device.sectors for device in devices)

    wait_until(ready, f"{count} disks", 60)


def measure(lab: Lab, way: Way, portals: int) -> dict[str, float]:
    """Seconds until it returned and until the last disk was there; processes made meanwhile.

    The kernel counts threads as processes, and the whole guest: iscsid's children, udev's workers.
    """
    make_quiet(lab)
    before = processes_created()
    began = time.perf_counter()
    way.attach()
    returned = time.perf_counter() - began
    processes = processes_created() - before
    wait_for_disks(portals)
    disks = time.perf_counter() - began
    run("udevadm", "settle", "--timeout=120", timeout=150)
    settled = processes_created() - before - 1  # udevadm is ours
    return {"returned": returned, "disks": disks, "processes": processes, "settled": settled}


def rounds(lab: Lab, count: int, portals: int) -> tuple[list[Way], list[dict[str, float]]]:
    """All ways, measured, and the phases of each of manypath's attaches."""
    places = lab.portals(portals)
    backend = lab.keep(SampleBackend(places[0], places[1:], shape="legacy", chap=None))
    volume = backend.create_volume("bench", SIZE_MIB)
    connector = {"initiator": INITIATOR, "multipath": True}
    data = backend.initialize_connection(volume, connector)["data"]
    portal = data["target_portal"]
    agent = Side("manypath", [sys.executable, str(HERE / "agent.py"), json.dumps(data)])
    phases: list[dict[str, float]] = []
    ways = [
        Way("manypath", lambda: phases.append(agent.do("attach")), lambda: agent.do("detach")),
        Way("iscsiadm", lambda: one_by_one(portal), lambda: log_out(lab)),
        Way("iscsiadm at once", lambda: at_once(portal), lambda: log_out(lab)),
    ]
    for number in range(WARM_UP + count):
        first = number % len(ways)
        for way in ways[first:] + ways[:first]:
            way.runs.append(measure(lab, way, portals))
            way.undo()
            wait_until(lambda: not snapshot().devices and not snapshot().maps, "nothing is left")
            print(way.name, end=", ", flush=True)
        print("warm-up" if number < WARM_UP else f"round {number}", flush=True)
    for way in ways:
        del way.runs[:WARM_UP]
    agent.close()
    return ways, phases[WARM_UP:]


# --- telling --------------------------------------------------------------------------------------


def cell(way: Way, key: str) -> str:
    """Median and range."""
    scale = 1e3 if key in ("returned", "disks") else 1
    values = [one[key] * scale for one in way.runs]
    return f"{statistics.median(values):.0f} ({min(values):.0f} - {max(values):.0f})"


def print_table(ways: list[Way], phases: list[dict[str, float]]) -> None:
    print(f"\n{'median (min - max)':<18}" + "".join(f"{head:>22}" for head in COLUMNS.values()))
    for way in ways:
        print(f"{way.name:<18}" + "".join(f"{cell(way, key):>22}" for key in COLUMNS))
    ours = ways[0]
    for way in ways[1:]:
        ratio = way.median("returned") / ours.median("returned")
        print(f"{way.name}: {ratio:.2f} times as long as {ours.name}")
    print("\nmedian ms of manypath's phases:")
    for name in phases[0]:
        print(f"  {name:<12}{statistics.median(one[name] for one in phases) * 1e3:>8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--portals", type=int, default=4)
    parser.add_argument("--multipathd", action="store_true", help="with multipathd running")
    arguments = parser.parse_args()

    run("modprobe", "-a", *MODULES)
    load_target()
    run("udevadm", "settle", "--timeout=60")
    guest = describe_guest()
    print(", ".join(f"{name} {value}" for name, value in guest.items()), flush=True)
    lab = Lab(Network())
    try:
        lab.multipathd.configure()
        lab.iscsid.start()
        if arguments.multipathd:
            lab.multipathd.start()
        ways, phases = rounds(lab, arguments.rounds, arguments.portals)
    finally:
        lab.close()
    found: dict[str, Any] = {"guest": guest, "arguments": vars(arguments), "phases": phases}
    found["rounds"] = {way.name: way.runs for way in ways}
    (RESULTS / "discovery.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found))
    print_table(ways, phases)


if __name__ == "__main__":
    main()
