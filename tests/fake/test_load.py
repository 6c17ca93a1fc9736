# SPDX-License-Identifier: Apache-2.0
"""Many at once, and many times: nothing is mixed up, nothing is left."""

from __future__ import annotations

import gc
import os
import random
import resource
import threading
import time

import pytest

from fake.host import IQN, Disk, FakeHost, Volume, until, worker_threads
from fake.iscsid import Request
from fake.library import Target

VOLUMES, PATHS = 64, 4


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_kib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


@pytest.fixture
def seed() -> int:
    """Printed, and given again with MANYPATH_FAKE_SEED."""
    value = int(os.environ.get("MANYPATH_FAKE_SEED", random.randrange(1 << 32)))
    print(f"MANYPATH_FAKE_SEED={value}")
    return value


def offer(host: FakeHost, number: int) -> tuple[Volume, list[Target]]:
    """Eight volumes to a target, so that logins are shared."""
    iqn, lun = f"{IQN}{number // 8}", number % 8
    return host.export(iqn, lun), host.targets(PATHS, iqn=iqn, lun=lun)


def test_all_at_once(host: FakeHost, seed: int) -> None:
    """64 volumes of 4 paths from two threads, with delays everywhere; then all are detached."""
    chance = random.Random(seed)
    lock = threading.Lock()

    def some(most: float) -> float:
        with lock:
            return chance.uniform(0.0, most)

    def delay(disk: Disk) -> float:
        return some(0.02)

    def login(request: Request) -> float:
        return some(0.05)

    host.iscsid.login_delay = host.iscsid.logout_delay = login
    host.device_delay = delay
    for point in ("scan", "inquiry", "dm.load", "delete"):
        host.call(point, lambda: time.sleep(some(0.005)), times=None)
    offers = [offer(host, number) for number in range(VOLUMES)]
    before = descriptors(), worker_threads()
    handle = host.open()
    failures: list[BaseException] = []

    def work(part: list[tuple[Volume, list[Target]]]) -> None:
        try:
            attaches = [handle.attach(targets, timeout=60.0) for _, targets in part]
            for (volume, _), operation in zip(part, attaches, strict=True):
                made = operation.finish()
                assert made.wwid == volume.wwid
                assert [path.state for path in made.paths] == ["ACTIVE"] * PATHS
            for operation in [handle.detach(targets, timeout=60.0) for _, targets in part]:
                operation.finish()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(offers[i::2],)) for i in range(2)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{VOLUMES} volumes attached and detached in {time.monotonic() - begin:.2f} s")
    assert not failures, failures
    assert until(lambda: host.clean)
    assert host.iscsid.max_in_flight <= 16
    handle.close()
    for item in host._sockets:
        item.close()
    host._sockets.clear()
    assert until(lambda: (descriptors(), worker_threads()) == before), (descriptors(), before)


def test_anything_goes(host: FakeHost, seed: int) -> None:
    """Attach, detach, cancel and short timeouts at random on eight volumes; then all is cleaned."""
    chance = random.Random(seed)
    offers = [offer(host, number) for number in range(8)]
    lock = threading.Lock()

    def some(most: float) -> float:
        with lock:
            return chance.uniform(0.0, most)

    host.iscsid.login_delay = host.iscsid.logout_delay = lambda _: some(0.02)
    host.device_delay = lambda _: some(0.01)
    handle = host.open()
    failures: list[BaseException] = []
    known = {"OK", "CANCELLED", "TIMEOUT", "LUN_NOT_FOUND", "DEVICE", "SESSION", "IN_USE", "MAP"}

    def work(mine: list[tuple[Volume, list[Target]]], dice: random.Random) -> None:
        try:
            for _ in range(40):
                _, targets = dice.choice(mine)
                begin = handle.attach if dice.random() < 0.6 else handle.detach
                operation = begin(targets, timeout=dice.choice([0.02, 0.1, 5.0]))
                if dice.random() < 0.3:
                    operation.wait(dice.uniform(0.0, 0.05))
                    operation.cancel()
                assert operation.code() in known
        except BaseException as error:
            failures.append(error)

    # every thread has volumes of its own, on targets that it shares with the others
    threads = [
        threading.Thread(target=work, args=(offers[i::4], random.Random(seed + i)))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures

    def tidy() -> bool:
        for _, targets in offers:
            handle.detach(targets).finish()
        return host.clean

    assert until(tidy), (host.sessions, host.disks, host.dm.maps)


def test_nothing_grows(host: FakeHost) -> None:
    """100 cycles with a handle each, after some to warm up."""
    _, targets = offer(host, 0)

    def cycle() -> None:
        handle = host.open()
        handle.attach(targets).finish()
        handle.detach(targets).finish()
        handle.close()
        host._handles.remove(handle)
        for item in host._sockets:
            item.close()
        host._sockets.clear()
        host.iscsid.requests.clear()
        host.calls.clear()

    for _ in range(30):
        cycle()
    assert until(lambda: worker_threads() == 0)
    gc.collect()
    files, memory = descriptors(), resident_kib()
    for _ in range(100):
        cycle()
    assert until(lambda: worker_threads() == 0)
    gc.collect()
    assert descriptors() == files
    grown = resident_kib() - memory
    print(f"grown by {grown} KiB")
    if "MANYPATH_FAKE_SANITIZE" not in os.environ:  # they keep freed memory back
        assert grown < 2048


def test_nothing_grows_in_one_handle(host: FakeHost) -> None:
    """The same, with one handle that lives long; failures and cancellations in between."""
    _, targets = offer(host, 0)
    handle = host.handle

    def cycle() -> None:
        handle.attach(targets).finish()
        handle.detach(targets).finish()
        operation = handle.attach(targets)
        operation.cancel()
        assert operation.code() in ("OK", "CANCELLED")
        assert handle.attach([t._replace(lun=99) for t in targets]).failure()
        handle.detach(targets).finish()
        host.iscsid.requests.clear()
        host.calls.clear()
        handle.log.clear()

    for _ in range(15):
        cycle()
    gc.collect()
    files, memory = descriptors(), resident_kib()
    for _ in range(50):
        cycle()
    gc.collect()
    assert until(lambda: descriptors() <= files + 2)
    grown = resident_kib() - memory
    print(f"grown by {grown} KiB")
    if "MANYPATH_FAKE_SANITIZE" not in os.environ:
        assert grown < 2048
