"""The library starts no process (contract 1): attach, extend, detach, discovery under strace."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import Export, Iscsid, Lab, Multipathd

CALLS = "fork,vfork,clone,clone3,execve,execveat"

SCRIPT = """
import json, os, sys
import manypath
properties = json.loads(sys.argv[1])
os.write(2, b"begin")
assert len(manypath.discover(properties["target_portal"]).targets) == int(sys.argv[3])
attachment = manypath.connect(properties, timeout=60)
assert len(attachment.paths) == 4 and attachment.path.startswith("/dev/dm-")
if sys.argv[2] == "start a process":
    os.posix_spawn("/bin/true", ["true"], {})
    os.wait()
grow = json.loads(sys.argv[4])
os.truncate(grow["file"], grow["size"])
with open(grow["control"], "w") as control:
    control.write(f"fd_dev_size={grow['size']}")
extension = manypath.extend(properties, size=grow["size"], timeout=60)
assert extension.size_bytes == grow["size"] > extension.old_size_bytes
manypath.disconnect(properties, timeout=60)
"""


def processes_started(trace: str) -> list[str]:
    """Traced calls that made a process: all but the first execve and clones that make threads."""
    call = re.compile(r"\b(v?fork|clone3?|execve(at)?)\(")
    calls = [line for line in trace.splitlines() if call.search(line)]
    assert calls and "execve(" in calls[0], trace
    return [line for line in calls[1:] if "CLONE_THREAD" not in line]


def traced(export: Export, properties: dict[str, Any], what: str, trace: Path) -> list[str]:
    (volume,) = export.volumes
    grow = {
        "file": str(volume.file),
        "control": f"{volume.backing.path}/control",
        "size": 2 * volume.size,
    }
    offered = str(len(export.portals))
    script = [sys.executable, "-c", SCRIPT, json.dumps(properties), what, offered]
    script.append(json.dumps(grow))
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(trace)]
    done = subprocess.run([*command, *script], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    text = trace.read_text()
    assert "CLONE_THREAD" in text, "the engine's thread is not in the trace: it traced nothing"
    return processes_started(text)


def test_attach_extend_and_detach_start_no_process(
    lab: Lab, iscsid: Iscsid, multipathd: Multipathd, tmp_path: Path
) -> None:
    export = lab.export(lab.volume(), lab.portals(4))
    assert traced(export, export.properties, "nothing else", tmp_path / "trace") == []


def test_discovery_and_host_names_start_no_process(
    lab: Lab, iscsid: Iscsid, tmp_path: Path
) -> None:
    """The spec's legacy answer: one portal, by its name."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text() if hosts.exists() else ""
    hosts.write_text(f"{before}{lab.portal(1).address} storage.example\n")
    export = lab.export(lab.volume(), lab.portals(4), shape="shared")
    singles = {key: value for key, value in export.properties.items() if not key.endswith("s")}
    singles["target_portal"] = f"storage.example:{lab.portal(1).port}"
    try:
        assert traced(export, singles, "nothing else", tmp_path / "trace") == []
    finally:
        hosts.write_text(before)


def test_a_process_started_on_purpose_is_seen(lab: Lab, iscsid: Iscsid, tmp_path: Path) -> None:
    export = lab.export(lab.volume(), lab.portals(4))
    found = traced(export, export.properties, "start a process", tmp_path / "trace")
    assert any("execve" in line and "/bin/true" in line for line in found), found


@pytest.mark.parametrize(
    ("line", "counted"),
    [
        ("7 clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, ...}, 88) = 8", False),
        ("7 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD) = 8", True),
        ("7 vfork() = 8", True),
        ('8 execve("/bin/true", ["true"], 0x7 /* 0 vars */) = 0', True),
    ],
)
def test_the_check_itself(line: str, counted: bool) -> None:
    first = '7 execve("/usr/bin/python3", ["python3"], 0x7 /* 9 vars */) = 0'
    assert processes_started(f"{first}\n{line}\n") == ([line] if counted else [])
