"""Living with multipathd: late, stopped, killed, reconfigured, restarted, and in each mode.

An attach ends with the right map, which multipathd adopts and keeps, or with a clear error. A
detach leaves nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import manypath
from lab import Export, Iscsid, Lab, Snapshot, Volume, dm, wait_until
from lab.blockdev import partition_table
from manypath import errors
from steps import (
    TIMEOUT,
    assert_nothing_left,
    assert_right_map,
    attach,
    detach,
    disks,
    mark,
)

PATHS = 2
Moment = Callable[[Snapshot], bool]


def offer(lab: Lab) -> tuple[Volume, Export]:
    """A marked volume behind two portals."""
    volume = lab.volume()
    mark(volume)
    return volume, lab.export(volume, lab.portals(PATHS))


def assert_kept(lab: Lab, volume: Volume, attachment: manypath.Attachment) -> None:
    """multipathd adopts the map, and has it still after it was reconfigured and restarted."""
    members = disks(attachment)
    assert len(members) == PATHS
    lab.multipathd.wait_adopted(volume.wwid, members)
    lab.multipathd.reconfigure()
    lab.multipathd.wait_adopted(volume.wwid, members)
    assert_right_map(lab, volume, attachment.device, members)
    lab.multipathd.restart()
    lab.multipathd.wait_adopted(volume.wwid, members)
    assert_right_map(lab, volume, attachment.device, members)


@pytest.mark.parametrize(
    ("mode", "friendly"), [("strict", False), ("greedy", True), ("smart", False), ("on", True)]
)
def test_each_mode(lab: Lab, iscsid: Iscsid, mode: str, friendly: bool) -> None:
    """With user_friendly_names multipathd may rename the map at any time; the device stays."""
    lab.multipathd.configure(mode, user_friendly_names=friendly)
    lab.multipathd.start()
    volume, export = offer(lab)
    attachment = attach(export.properties)
    assert attachment.multipathd_running
    assert attachment.warnings == ()
    assert_kept(lab, volume, attachment)
    again = attach(export.properties)
    assert (again.device, again.map_existed) == (attachment.device, True)
    assert [found.name for found in lab.snapshot().maps] == [again.name]
    detach(lab, export.properties)


def test_starting_late(lab: Lab, iscsid: Iscsid) -> None:
    """After the attach: in strict mode it keeps only what it finds in its file of WWIDs."""
    volume, export = offer(lab)
    attachment = attach(export.properties)
    assert not attachment.multipathd_running
    lab.multipathd.configure("strict")
    lab.multipathd.start()
    assert_kept(lab, volume, attachment)
    detach(lab, export.properties)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_gone_after_the_attach(lab: Lab, iscsid: Iscsid, end: str) -> None:
    """The map it leaves is taken as it is, and nobody waits for a daemon that is not there."""
    lab.multipathd.start()
    volume, export = offer(lab)
    attachment = attach(export.properties)
    lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    if end == "stopped":
        lab.multipathd.stop()
    else:
        lab.multipathd.kill()
    again = attach(export.properties)
    assert (again.device, again.multipathd_running) == (attachment.device, False)
    assert_right_map(lab, volume, again.device, disks(attachment))
    assert not dm.table(volume.wwid).queues, "the map queues and nobody would stop it"
    detach(lab, export.properties)


def test_reconfigured_all_the_time(lab: Lab, iscsid: Iscsid) -> None:
    lab.multipathd.start()
    volume, export = offer(lab)
    over = threading.Event()

    def reconfigure() -> None:
        while not over.is_set():
            lab.multipathd.reconfigure()

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(reconfigure)
        try:
            for _ in range(2):
                attachment = attach(export.properties)
                assert_right_map(lab, volume, attachment.device, disks(attachment))
                detach(lab, export.properties)
        finally:
            over.set()
        busy.result()


# --- restarted in the middle ----------------------------------------------------------------


def at_moment(lab: Lab, moment: Moment, what: str, call: Callable[[], object]) -> Any:
    """Begin a call in a thread and, once the host looks as ``moment`` says, restart multipathd."""
    pid = lab.multipathd.pid
    assert pid is not None
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        wait_until(lambda: running.done() or moment(lab.snapshot()), what, TIMEOUT)
        os.kill(pid, signal.SIGKILL)
        lab.multipathd.restart()
        return running.result()


ATTACHING: dict[str, Moment] = {
    "a session": lambda now: bool(now.sessions),
    "a disk": lambda now: bool(now.devices),
    "a map": lambda now: bool(now.maps),
}


@pytest.mark.parametrize("moment", list(ATTACHING))
def test_restarted_in_the_middle_of_an_attach(lab: Lab, iscsid: Iscsid, moment: str) -> None:
    lab.multipathd.start()
    volume, export = offer(lab)

    def call() -> manypath.Attachment:
        return attach(export.properties)

    attachment = at_moment(lab, ATTACHING[moment], f"there is {moment}", call)
    lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    assert_right_map(lab, volume, attachment.device, disks(attachment))
    detach(lab, export.properties)


def test_restarted_while_paths_join_its_map(lab: Lab, iscsid: Iscsid) -> None:
    """The map is there and the daemon's: the attach waits for it to take the other path."""
    lab.multipathd.start()
    volume, export = offer(lab)
    both = export.properties
    one = {key: [both[key][0]] for key in ("target_portals", "target_iqns", "target_luns")}
    first = attach({**both, **one})
    lab.multipathd.wait_adopted(volume.wwid, disks(first))

    def call() -> manypath.Attachment:
        return attach(both)

    attachment = at_moment(lab, lambda now: len(now.devices) == PATHS, "both disks", call)
    assert attachment.device == first.device
    lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    assert_right_map(lab, volume, attachment.device, disks(attachment))
    detach(lab, both)


DETACHING: dict[str, Moment] = {
    "the beginning": lambda _: True,
    "no map": lambda now: not now.maps,
    "a disk less": lambda now: len(now.devices) < PATHS,
}


@pytest.mark.parametrize("moment", list(DETACHING))
def test_restarted_in_the_middle_of_a_detach(lab: Lab, iscsid: Iscsid, moment: str) -> None:
    lab.multipathd.start()
    volume, export = offer(lab)
    attachment = attach(export.properties)
    lab.multipathd.wait_adopted(volume.wwid, disks(attachment))

    def call() -> manypath.Detachment:
        return manypath.disconnect(export.properties, timeout=TIMEOUT)

    assert at_moment(lab, DETACHING[moment], moment, call).map_removed
    assert_nothing_left(lab)


# --- the volume is blacklisted --------------------------------------------------------------

BLACKLISTS = {
    "by WWID": "blacklist {{\n    wwid {wwid}\n}}\n",
    "by device": 'blacklist {{\n    device {{\n        vendor "LIO.*"\n    }}\n}}\n',
}


@pytest.mark.parametrize("rule", list(BLACKLISTS))
def test_blacklisted(lab: Lab, iscsid: Iscsid, rule: str) -> None:
    """A map would be removed with its next reconfigure: so none is made, and the error says why."""
    volume, export = offer(lab)
    lab.multipathd.configure("greedy", extra=BLACKLISTS[rule].format(wwid=volume.wwid))
    lab.multipathd.start()
    with pytest.raises(errors.MapError, match="blacklist") as caught:
        manypath.connect(export.properties, timeout=TIMEOUT)
    assert not caught.value.retryable
    assert_nothing_left(lab)
    lab.multipathd.stop()
    lab.multipathd.configure("greedy")
    lab.multipathd.start()
    attach(export.properties)
    detach(lab, export.properties)


def test_an_exception_of_the_blacklist(lab: Lab, iscsid: Iscsid) -> None:
    volume, export = offer(lab)
    everything = 'blacklist {\n    wwid ".*"\n}\n'
    exception = f"blacklist_exceptions {{\n    wwid {volume.wwid}\n}}\n"
    lab.multipathd.configure("greedy", extra=everything + exception)
    lab.multipathd.start()
    attachment = attach(export.properties)
    assert_kept(lab, volume, attachment)
    detach(lab, export.properties)


# --- partitions -----------------------------------------------------------------------------


@pytest.mark.parametrize("skip", ["yes", "no", "no daemon"])
def test_partitions(lab: Lab, iscsid: Iscsid, skip: str) -> None:
    """udev has kpartx make a map of each partition, which holds the volume's map open; not if
    multipathd's configuration forbids it, from the first event of a map of ours on.
    """
    volume, export = offer(lab)
    with volume.file.open("r+b") as storage:
        storage.write(partition_table(2048, 16384, 2))
    if skip != "no daemon":
        lab.multipathd.configure(defaults=f"    skip_kpartx {skip}")
        lab.multipathd.start()
    attachment = attach(export.properties)
    uuids = {f"part{number}-mpath-{volume.wwid}" for number in (1, 2)}

    def partitions() -> bool:
        return uuids <= {found.uuid for found in lab.snapshot().maps}

    if skip != "yes":
        wait_until(partitions, "maps of both partitions", 60)
    if skip != "no daemon":
        lab.multipathd.wait_adopted(volume.wwid, disks(attachment))
    lab.settle()
    mapped = {found.uuid for found in lab.snapshot().maps} & uuids
    assert mapped == (set() if skip == "yes" else uuids)
    detach(lab, export.properties)
    lab.settle()
    assert_nothing_left(lab)
