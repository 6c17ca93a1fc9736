"""What a test must not leave behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from lab.state import Snapshot

# Made once by open-iscsi for itself (its SEMKEY) and never removed; it is nobody's leak.
OPEN_ISCSI_SEMAPHORE = 0xA7

TROUBLE = re.compile(
    r"\bBUG\b|\bWARNING:|\bOops\b|Call Trace|general protection|blocked for more than"
    r"|hung[ _]task|messages were lost"
)


# Warnings that are nobody's fault here, each up to the end of its trace:
# - mq-deadline counts requests that dm-multipath inserted past it as completed, and warns of its
#   own statistics, once in a boot, when the disk goes (block/mq-deadline.c dd_exit_sched, 6.1);
# - a trap for a single step that nobody asked for, which the emulator makes
#   (arch/x86/kernel/traps.c, seen with QEMU 7.2 and 6.12).
NOT_OURS = re.compile(
    r"statistics for priority \d: i \d+ m \d+ d \d+ c \d+"
    r"|WARNING: .* at arch/x86/kernel/traps\.c:\d+ exc_debug_kernel"
)


def kernel_trouble(lines: Iterable[str]) -> list[str]:
    """Lines of the kernel log that mean something is wrong in the kernel."""
    found = []
    not_ours = False
    for line in lines:
        if NOT_OURS.search(line) or "---[ end trace" in line:
            not_ours = "---[ end trace" not in line
        elif not not_ours and TROUBLE.search(line):
            found.append(line)
    return found


def leaks(before: Snapshot, after: Snapshot) -> list[str]:
    """What differs, in words; empty when all is as before. Identity counts, not state."""
    kinds: dict[str, Callable[[Snapshot], set[tuple[str | int, str]]]] = {
        "iSCSI session": lambda s: {(x.sid, f"{x.sid} {x.iqn} at {x.address}") for x in s.sessions},
        "SCSI device": lambda s: {(x.hctl, f"{x.name} {x.hctl}") for x in s.devices},
        "dm map": lambda s: {(x.name, f"{x.device} {x.name} {x.uuid}") for x in s.maps},
        "semaphore": lambda s: {
            (key, f"0x{key & 0xFFFFFFFF:08x}")
            for key in s.semaphores
            if key != OPEN_ISCSI_SEMAPHORE
        },
    }
    found = []
    for kind, items in kinds.items():
        old, new = dict(items(before)), dict(items(after))
        found += [f"{kind} left behind: {new[key]}" for key in sorted(new.keys() - old.keys())]
        found += [f"{kind} gone: {old[key]}" for key in sorted(old.keys() - new.keys())]
    return found
