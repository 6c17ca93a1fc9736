"""Secrets stay where they belong (contract 10): no output, and no memory of ours, has them.

A child attaches with CHAP and says everything it can about what happened. It gets its secrets
masked, and wipes its own strings afterwards; then nobody but the library could still have a copy.
This process looks through all of the child's memory for them.
"""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backend import SampleBackend
from lab import Chap, Iscsid, Lab

MASK = 0x5A
CHILD = """
import copy, ctypes, json, sys, traceback
import manypath
from manypath.properties import discovery_credentials

MASK = 0x5a
made = []  # addresses and lengths of the secrets, to wipe them

def unmask(numbers):
    text = "".join(["x"] * len(numbers))  # a string of its own
    ctypes.pythonapi.PyUnicode_AsUTF8.restype = ctypes.c_void_p
    address = ctypes.pythonapi.PyUnicode_AsUTF8(ctypes.py_object(text))
    for index, number in enumerate(numbers):
        ctypes.memset(address + index, number ^ MASK, 1)
    made.append((text, address, len(numbers)))
    return text

def say(*things):
    print(*things, flush=True)

def call(function, *arguments, **options):
    try:
        result = function(*arguments, **options)
        say(repr(result), result.as_dict())
        return result
    except manypath.ManypathError as error:
        say(repr(error), str(error), error.as_dict(), *map(repr, error.paths))
        say("".join(traceback.format_exception(error)))

job = json.loads(sys.stdin.readline())
data = {key: unmask(value) if "password" in key else value for key, value in job["data"].items()}
plan = manypath.plan(data)
say(repr(plan), plan.as_dict(), repr(plan.chap), repr(copy.deepcopy(plan)))
say("connect")
call(manypath.connect, data, timeout=30)
portal = data.get("target_portal") or data["target_portals"][0]
call(manypath.discover, portal, chap=discovery_credentials(data), timeout=20)
call(manypath.disconnect, data, timeout=30)
for text, address, length in made if job["wipe"] else ():
    ctypes.memset(address, ord("#"), length)
say("done")
sys.stdin.readline()
"""


@dataclass
class Told:
    output: str
    found: dict[str, int]  # places in memory for each secret


def occurrences(pid: int, needles: dict[str, bytes]) -> dict[str, int]:
    found = dict.fromkeys(needles, 0)
    overlap = max(map(len, needles.values()))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in readable(pid):
            tail = b""
            for at in range(start, end, 1 << 20):
                memory.seek(at)
                try:
                    part = tail + memory.read(min(1 << 20, end - at))
                except OSError:  # [vvar] and the like
                    break
                for name, needle in needles.items():
                    found[name] += part.count(needle)
                tail = part[-overlap + 1 :]
    return found


def readable(pid: int) -> Iterator[tuple[int, int]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
        if found and "[v" not in line:
            yield int(found[1], 16), int(found[2], 16)


def run_child(data: dict[str, Any], wipe: bool = True) -> Told:
    needles = {key: value.encode() for key, value in data.items() if "password" in key}
    masked = {
        key: [byte ^ MASK for byte in value.encode()] if "password" in key else value
        for key, value in data.items()
    }
    job = json.dumps({"data": masked, "wipe": wipe})
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job + "\n")
    process.stdin.flush()
    output = ""
    for line in process.stdout:
        output += line
        if line == "done\n":
            break
    found = occurrences(process.pid, needles) if output.endswith("done\n") else {}
    process.communicate("\n", 60)
    assert output.endswith("done\n"), output
    return Told(output, found)


def check(told: Told, data: dict[str, Any]) -> None:
    for key, value in data.items():
        if "password" in key:
            assert value not in told.output, key
    assert told.found
    assert not any(told.found.values()), told.found


@pytest.fixture
def chap() -> Chap:
    return Chap("user", secrets.token_hex(8), "target", secrets.token_hex(8))


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
@pytest.mark.parametrize("shape", ["lists", "legacy"])
def test_secrets_are_nowhere(
    lab: Lab,
    iscsid: Iscsid,
    sample: Callable[..., SampleBackend],
    chap: Chap,
    shape: str,
    wrong: bool,
) -> None:
    discovery = Chap("finder", secrets.token_hex(8))
    backend = sample(lab.portals(2), chap=chap, discovery_chap=discovery, shape=shape)
    volume = backend.create_volume("secret", 64)
    connector = {"initiator": initiator(), "multipath": True}
    data = backend.initialize_connection(volume, connector)["data"]
    if wrong:
        data["auth_password"] = secrets.token_hex(8)
    told = run_child(data)
    assert ("AuthenticationError" in told.output) == wrong
    check(told, data)
    backend.terminate_connection(volume, connector)
    backend.delete_volume(volume)
    for line in iscsid.log() + lab.klog():
        assert not [key for key, value in data.items() if "password" in key and value in line]


def test_the_search_finds_what_is_there(
    lab: Lab, iscsid: Iscsid, sample: Callable[..., SampleBackend], chap: Chap
) -> None:
    """A child that does not wipe its strings."""
    backend = sample(lab.portals(1), chap=chap)
    volume = backend.create_volume("secret", 64)
    connector = {"initiator": initiator(), "multipath": True}
    data = backend.initialize_connection(volume, connector)["data"]
    told = run_child(data, wipe=False)
    assert told.found["auth_password"] == 1  # the caller's own, and no other
    backend.terminate_connection(volume, connector)
    backend.delete_volume(volume)


def initiator() -> str:
    text = Path("/etc/iscsi/initiatorname.iscsi").read_text()
    return text.partition("InitiatorName=")[2].strip()
