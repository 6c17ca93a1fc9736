#!/usr/bin/env python3
"""Measure manypath beside the floor, in the lab's guest. ``benches/lab/host.py`` starts it there.

For each number of portals, with multipathd stopped and running: rounds of attach and detach, the
floor and manypath in turn, and in turn who goes first. Both run in processes that live through all
rounds. Before every operation the guest is quiet: what udev and multipathd do after an operation
belongs to neither.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import Export, Lab, Network, load_target, run, snapshot, wait_until

HERE = Path(__file__).resolve().parent
RESULTS = Path("/results")
MODULES = ("iscsi_tcp", "dm_multipath", "dm_service_time", "scsi_dh_alua")

OPERATIONS = ("attach", "detach")
PHASES = {
    "attach": ("login", "scan", "device", "identity", "map"),
    "detach": ("flush", "unmap", "delete", "logout"),
}
OVERHEAD = ("queue", "prepare", "python")  # manypath's alone

QUIET_WINDOW = 0.25  # seconds; this many in a row with no more CPU than that
QUIET_WINDOWS = 3
QUIET_CPU = 0.05  # of all CPUs
QUIET_LIMIT = 180.0


# --- a quiet guest --------------------------------------------------------------------------------


def cpu_ticks() -> tuple[int, int]:
    """Busy and all ticks since boot."""
    values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = values[3] + values[4]
    return sum(values) - idle, sum(values)


def is_idle() -> bool:
    busy, total = cpu_ticks()
    time.sleep(QUIET_WINDOW)
    busy_after, total_after = cpu_ticks()
    return busy_after - busy <= QUIET_CPU * max(total_after - total, 1)


def make_quiet(lab: Lab) -> None:
    """Wait until udev has nothing to do, multipathd is idle and the CPUs are."""
    deadline = time.monotonic() + QUIET_LIMIT
    quiet = 0
    while quiet < QUIET_WINDOWS:
        if time.monotonic() > deadline:
            raise AssertionError(f"the guest does not become quiet within {QUIET_LIMIT:g} s")
        if quiet == 0:
            run("udevadm", "settle", "--timeout=120", timeout=150)
            if lab.multipathd.listening:
                status = run("multipathd", "show", "daemon", check=False)
                if not status.rstrip().endswith("idle"):
                    continue
        quiet = quiet + 1 if is_idle() else 0


# --- the two sides --------------------------------------------------------------------------------


class Side:
    """A process that attaches and detaches on command."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, operation: str) -> dict[str, float]:
        """Seconds in total and of each phase."""
        assert self._process.stdin
        self._process.stdin.write(f"{operation}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"{self.name} ended with status {self._process.wait()}")
        return json.loads(line)


def start_sides(export: Export) -> list[Side]:
    properties = export.properties
    words = [str(properties["target_lun"])]
    for portal, iqn in zip(export.portals, properties["target_iqns"], strict=True):
        words += [portal.address, str(portal.port), iqn]
    return [
        Side("floor", [str(HERE / "floor"), *words]),
        Side("manypath", [sys.executable, str(HERE / "agent.py"), json.dumps(properties)]),
    ]


def check_state(operation: str, portals: int) -> None:
    """Both sides must have done the same thing."""
    paths = portals if operation == "attach" else 0

    def reached() -> bool:
        now = snapshot()
        members = [len(dm.members) for dm in now.maps if dm.kind == "mpath"]
        wanted = [paths] if paths else []
        return len(now.sessions) == len(now.devices) == paths and members == wanted

    try:
        wait_until(reached, f"{paths} paths after {operation}")
    except AssertionError:
        print(f"\n{snapshot()}")
        raise


# --- what a side asks of the kernel ---------------------------------------------------------------

CALL = re.compile(r"^\d+ +[\d.]+ (\w+)\((.*)")
IOCTL = re.compile(r"\b(DM_\w+|SG_IO|BLKGETSIZE64)\b")


def count_calls(trace: Path) -> Counter[str]:
    """The calls of one strace log that make up the work, and how many calls there were at all."""
    counts: Counter[str] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        match = CALL.match(line)
        if not match:
            continue
        name, arguments = match.groups()
        counts["all system calls"] += 1
        if name == "connect" and "ISCSIADM_ABSTRACT_NAMESPACE" in arguments:
            counts["requests to iscsid"] += 1
        elif name == "connect" and "storage/multipathd" in arguments:
            counts["requests to multipathd"] += 1
        elif name == "ioctl" and (request := IOCTL.search(arguments)):
            counts[request[1]] += 1
        elif name == "openat" and '/scan"' in arguments:
            counts["LUN scans"] += 1
        elif name == "openat" and '/delete"' in arguments:
            counts["device deletes"] += 1
        elif name == "openat":
            counts["other opens"] += 1
        elif name in ("clone", "clone3"):
            counts["threads started"] += 1
        elif name in ("fork", "vfork", "execve"):
            counts["PROCESSES STARTED"] += 1
        elif name in ("fsync", "fdatasync"):
            counts["fsync"] += 1
    return counts


def traced(side: Side, operation: str, case: str) -> Counter[str]:
    """One operation under strace; the log stays in the results."""
    log = RESULTS / f"strace-{case}-{operation}-{side.name}.log"
    strace = subprocess.Popen(
        ["strace", "-f", "-ttt", "-s", "96", "-o", str(log), "-p", str(side.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr
    strace.stderr.readline()  # "Process N attached"
    time.sleep(0.5)  # the other threads
    try:
        side.do(operation)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(30)
        strace.stderr.close()
    return count_calls(log)


# --- measuring ------------------------------------------------------------------------------------


@dataclass
class Case:
    """One number of portals, with or without multipathd, and what was measured."""

    portals: int
    multipathd: bool
    rounds: dict[str, dict[str, list[dict[str, float]]]] = field(
        default_factory=lambda: {op: {"floor": [], "manypath": []} for op in OPERATIONS}
    )
    calls: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.portals}-{'multipathd' if self.multipathd else 'plain'}"

    def totals(self, operation: str, side: str) -> list[float]:
        return [one["total"] for one in self.rounds[operation][side]]

    def ratios(self, operation: str) -> tuple[float, float]:
        """Ratio of the medians, and median of the ratios of each round."""
        floor = self.totals(operation, "floor")
        ours = self.totals(operation, "manypath")
        pairs = [mine / least for mine, least in zip(ours, floor, strict=True)]
        return statistics.median(ours) / statistics.median(floor), statistics.median(pairs)

    def median(self, operation: str, side: str, phase: str) -> float:
        return statistics.median(one.get(phase, 0.0) for one in self.rounds[operation][side])

    def as_dict(self) -> dict[str, Any]:
        return {
            "portals": self.portals,
            "multipathd": self.multipathd,
            "rounds": self.rounds,
            "ratios": {op: self.ratios(op) for op in OPERATIONS},
            "calls": self.calls,
        }


def attach_and_detach(lab: Lab, portals: int, do: Callable[[str], object], progress: str) -> None:
    """From nothing to nothing, each operation beginning in a quiet guest."""
    for operation in OPERATIONS:
        make_quiet(lab)
        do(operation)
        check_state(operation, portals)
    print(progress, end=" ", flush=True)


def measure(lab: Lab, case: Case, rounds: int, trace: bool) -> None:
    volume = lab.volume(size_mib=64)
    export = lab.export(volume, lab.portals(case.portals))
    sides = start_sides(export)

    def record(side: Side) -> Callable[[str], None]:
        return lambda op: case.rounds[op][side.name].append(side.do(op))

    def trace_calls(side: Side) -> Callable[[str], None]:
        def do(operation: str) -> None:
            counts = traced(side, operation, case.name)
            case.calls.setdefault(operation, {})[side.name] = counts

        return do

    print(f"{case.portals} portals, {case.name.split('-')[1]}:", end=" ", flush=True)
    for side in sides:
        attach_and_detach(lab, case.portals, side.do, "w")
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            attach_and_detach(lab, case.portals, record(side), side.name[0])
    if trace:
        for side in sides:
            attach_and_detach(lab, case.portals, trace_calls(side), "s")
    print(flush=True)
    for side in sides:
        side.close()
    lab.targets.unexport(export)
    lab.targets.delete_volume(volume)


# --- telling --------------------------------------------------------------------------------------


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f}" if seconds < 0.01 else f"{seconds * 1e3:.0f}"


def print_totals(cases: list[Case]) -> None:
    print(
        f"\n{'portals':>7} {'multipathd':<10} {'':<7}{'floor ms (min - max)':>24}"
        f"{'manypath ms (min - max)':>26}{'ratio':>8}{'pairs':>7}"
    )
    for operation in OPERATIONS:
        for case in cases:
            cells = []
            for side in ("floor", "manypath"):
                totals = case.totals(operation, side)
                spread = f"({milliseconds(min(totals))} - {milliseconds(max(totals))})"
                cells.append(f"{milliseconds(statistics.median(totals))} {spread}")
            ratio, pairs = case.ratios(operation)
            state = "running" if case.multipathd else "stopped"
            print(
                f"{case.portals:>7} {state:<10} {operation:<7}{cells[0]:>24}{cells[1]:>26}"
                f"{ratio:>8.2f}{pairs:>7.2f}"
            )


def print_phases(cases: list[Case]) -> None:
    for operation in OPERATIONS:
        columns = (*PHASES[operation], *OVERHEAD)
        print(f"\n{operation}: median ms of each phase")
        print(
            f"{'portals':>7} {'multipathd':<10} {'side':<9}"
            + "".join(f"{name:>9}" for name in columns)
        )
        for case in cases:
            state = "running" if case.multipathd else "stopped"
            for side in ("floor", "manypath"):
                cells = [milliseconds(case.median(operation, side, name)) for name in columns]
                print(
                    f"{case.portals:>7} {state:<10} {side:<9}"
                    + "".join(f"{cell:>9}" for cell in cells)
                )


def print_calls(cases: list[Case]) -> None:
    for case in cases:
        for operation, sides in case.calls.items():
            state = "running" if case.multipathd else "stopped"
            print(
                f"\ncalls of one {operation}, {case.portals} portals, multipathd {state}"
                " (floor, manypath)"
            )
            for name in sorted(set(sides["floor"]) | set(sides["manypath"])):
                print(f"  {name:<26}{sides['floor'][name]:>6}{sides['manypath'][name]:>6}")


def describe_guest() -> dict[str, str]:
    return {
        "kernel": platform.release(),
        "cpus": run("nproc").strip(),
        "open-iscsi": run("dpkg-query", "-W", "-f", "${Version}", "open-iscsi"),
        "multipath-tools": run("dpkg-query", "-W", "-f", "${Version}", "multipath-tools"),
        "hypervisor": run("systemd-detect-virt", check=False).strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portals", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--multipathd", choices=["stopped", "running", "both"], default="both")
    parser.add_argument("--no-trace", action="store_true", help="do not count calls with strace")
    arguments = parser.parse_args()

    run("modprobe", "-a", *MODULES)
    load_target()
    run("udevadm", "settle", "--timeout=60")
    guest = describe_guest()
    print(", ".join(f"{name} {value}" for name, value in guest.items()), flush=True)
    states = {"stopped": [False], "running": [True], "both": [False, True]}
    cases = []
    lab = Lab(Network())
    try:
        # As on a host where multipath-tools is set up, so that both sides list the WWID.
        lab.multipathd.configure()
        Path("/etc/multipath").mkdir(exist_ok=True)
        lab.iscsid.start()
        for running in states[arguments.multipathd]:
            if running:
                lab.multipathd.start()
            for portals in arguments.portals:
                case = Case(portals, running)
                measure(lab, case, arguments.rounds, not arguments.no_trace)
                cases.append(case)
                found = {"guest": guest, "cases": [one.as_dict() for one in cases]}
                (RESULTS / "bench.json").write_text(json.dumps(found, indent=1))
    finally:
        lab.close()
        if cases:
            print_totals(cases)
            print_phases(cases)
            print_calls(cases)


if __name__ == "__main__":
    main()
