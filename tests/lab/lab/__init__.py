"""Handle of the lab for tests that run inside its guest."""

from lab import dm
from lab.caller import Caller, Outcome
from lab.check import kernel_trouble, leaks
from lab.daemons import Iscsid, Multipathd
from lab.handle import Lab
from lab.kernel_log import KernelLog
from lab.network import Network, Portal
from lab.state import DmMap, ScsiDevice, Session, Snapshot, processes_created, snapshot
from lab.target import Chap, Export, TargetServer, Volume, load_target
from lab.tools import run, wait_until
from lab.victims import Answer, Victim, Victims, blocked_threads

__all__ = [
    "Answer",
    "Caller",
    "Chap",
    "DmMap",
    "Export",
    "Iscsid",
    "KernelLog",
    "Lab",
    "Multipathd",
    "Network",
    "Outcome",
    "Portal",
    "ScsiDevice",
    "Session",
    "Snapshot",
    "TargetServer",
    "Victim",
    "Victims",
    "Volume",
    "blocked_threads",
    "dm",
    "kernel_trouble",
    "leaks",
    "load_target",
    "processes_created",
    "run",
    "snapshot",
    "wait_until",
]
