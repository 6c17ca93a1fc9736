# SPDX-License-Identifier: Apache-2.0
"""Giving up: timeouts, calls stuck in the kernel, cancelling, closing, forking."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

import pytest

from fake.host import FakeHost, Gate, at_most, until, worker_threads
from fake.iscsid import LOGIN, Answer, Default
from fake.library import Failure, Operation

# --- stuck in the kernel --------------------------------------------------------------------------

STUCK = ["scan", "inquiry", "size", "dm.create", "dm.load", "dm.resume"]


@pytest.mark.parametrize("point", ["dm.version", *STUCK])
def test_attach_stuck(host: FakeHost, point: str) -> None:
    """The caller is answered, the thread is left alone; when it comes back nothing is left."""
    volume = host.export()
    gate = host.block(point, times=None)
    with at_most(1.6):
        error = host.handle.attach(host.targets(2), timeout=0.5).failure()
    assert error.code == "TIMEOUT"
    gate.release()
    assert until(lambda: host.clean)
    assert host.handle.attach(host.targets(2)).finish().wwid == volume.wwid


@pytest.mark.parametrize("point", ["dm.info", "fsync", "dm.remove", "delete"])
def test_detach_stuck(host: FakeHost, point: str) -> None:
    host.export()
    host.handle.attach(host.targets(2)).finish()
    gate = host.block(point, times=None)
    with at_most(1.5):
        error = host.handle.detach(host.targets(2), timeout=0.5).failure()
    assert error.code == "TIMEOUT"
    gate.release()
    assert until(lambda: host.handle.detach(host.targets(2)).finish() and host.clean)


def test_one_path_stuck(host: FakeHost) -> None:
    """INQUIRY on one disk never returns: the volume goes without it when its time is over."""
    host.export()
    gate = host.block("inquiry", "sda", times=None)
    made = host.handle.attach(host.targets(3), timeout=1.0).finish()
    assert sorted(path.state for path in made.paths) == ["ACTIVE", "ACTIVE", "FAILED"]
    gate.release()
    assert until(lambda: len(host.sessions) == 2)
    assert until(lambda: len(host.disks) == 2)


def test_stuck_threads_do_not_use_up_the_workers(host: FakeHost) -> None:
    """Each abandoned thread makes room for a new one."""
    for lun in range(1, 5):
        host.export(lun=lun)
    handle = host.open(worker_threads=2)
    gate = host.block("inquiry", times=None)
    for lun in range(1, 4):
        assert handle.attach(host.targets(2, lun=lun), timeout=0.3).failure().code == "TIMEOUT"
    host._rules.clear()
    assert handle.attach(host.targets(2, lun=4), timeout=5.0).finish().path_count == 2
    gate.release()


def test_the_same_volume_waits_for_what_is_stuck(host: FakeHost) -> None:
    host.export()
    gate = host.block("inquiry", times=2)
    assert host.handle.attach(host.targets(2), timeout=0.3).failure().code == "TIMEOUT"
    error = host.handle.attach(host.targets(2), timeout=0.3).failure()
    assert (error.code, error.phase) == ("TIMEOUT", "prepare")
    assert "another operation" in error.message
    gate.release()
    assert host.handle.attach(host.targets(2), timeout=5.0).finish().path_count == 2


def test_more_jobs_than_workers(host: FakeHost) -> None:
    host.export()
    assert host.open(worker_threads=1).attach(host.targets(16)).finish().path_count == 16


def test_close_while_stuck(host: FakeHost) -> None:
    """Closing never waits for the kernel; the thread ends by itself."""
    host.export()
    gate = host.block("inquiry", times=None)
    handle = host.open()
    operation = handle.attach(host.targets(2), timeout=5.0)
    assert gate.reached()
    with at_most(0.5):
        handle.close()
    assert operation.failure().code == "CANCELLED"
    gate.release()
    assert until(lambda: worker_threads() == 0)


# --- cancelling -----------------------------------------------------------------------------------


def hold_login(host: FakeHost) -> Callable[[], None]:
    host.iscsid.login_delay = 0.5
    return lambda: None


def hold_device(host: FakeHost) -> Callable[[], None]:
    host.device_delay = lambda _: None
    return lambda: None


def hold_point(point: str) -> Callable[[FakeHost], Callable[[], None]]:
    def hold(host: FakeHost) -> Callable[[], None]:
        gate: Gate = host.block(point, times=None)
        return gate.release

    return hold


STAGES = [
    pytest.param(hold_point("dm.version"), lambda host: host.passed("dm.version"), id="prepare"),
    pytest.param(hold_login, lambda host: len(host.iscsid.of(LOGIN)) == 3, id="login"),
    pytest.param(hold_point("scan"), lambda host: len(host.passed("scan")) == 3, id="scan"),
    pytest.param(hold_device, lambda host: len(host.passed("scan")) == 3, id="device"),
    pytest.param(
        hold_point("inquiry"), lambda host: len(host.passed("inquiry")) == 3, id="identity"
    ),
    pytest.param(hold_point("dm.create"), lambda host: host.passed("dm.create"), id="create"),
    pytest.param(hold_point("dm.load"), lambda host: host.passed("dm.load"), id="load"),
    pytest.param(hold_point("dm.resume"), lambda host: host.passed("dm.resume"), id="resume"),
    pytest.param(hold_point("dm.status"), lambda host: host.passed("dm.status"), id="status"),
]


@pytest.mark.parametrize(("hold", "reached"), STAGES)
def test_cancel(
    host: FakeHost,
    hold: Callable[[FakeHost], Callable[[], None]],
    reached: Callable[[FakeHost], bool],
) -> None:
    """Whatever it made is gone soon, at the latest when a call stuck in the kernel returns."""
    volume = host.export()
    release = hold(host)
    operation = host.handle.attach(host.targets(3))
    assert until(lambda: reached(host))
    operation.cancel()
    if operation.wait(0.5):  # else it waits for a map that is being made, as long as its timeout
        assert operation.failure().code == "CANCELLED"
        release()
    else:
        release()
        with at_most(1.0):
            assert operation.failure().code == "CANCELLED"
    assert until(lambda: not host.sessions and not host.disks and not host.dm.maps, 2.0)
    host.iscsid.login_delay = 0.0
    host.device_delay = lambda _: 0.0
    assert host.handle.attach(host.targets(3)).finish().wwid == volume.wwid
    assert len(host.dm.maps) == 1


def cancel(host: FakeHost, operation: Operation) -> None:
    """What begins after it ends when the loop has heard of it."""
    operation.cancel()
    host.handle.resolve("127.0.0.1").finish()


def test_cancel_and_map_made_again(host: FakeHost) -> None:
    """multipathd makes the map that was taken back once more, while the disks go."""
    volume = host.export()
    gate = host.block("dm.status")

    def make_again() -> None:
        devs = [disk.dev for disk in host.disks.values()]
        host.dm.make(volume.uuid, devs, volume.size // 512)

    both = threading.Barrier(2, make_again)
    operation = host.handle.attach(host.targets(2), timeout=3.0)
    assert gate.reached()
    host.call("delete", lambda: both.wait(5.0) and None, times=2)
    cancel(host, operation)
    gate.release()
    assert operation.failure().code == "CANCELLED"
    assert not both.broken
    assert until(lambda: host.clean)


@pytest.mark.parametrize("stage", ["dm.create", "dm.load", "dm.resume", "dm.status"])
def test_cancel_leaves_a_map_of_before(host: FakeHost, stage: str) -> None:
    volume = host.export()
    host.handle.attach(host.targets(2)).finish()
    gate = host.block(stage, times=None)
    operation = host.handle.attach(host.targets(3), timeout=3.0)
    if gate.reached(0.5):
        operation.cancel()
        assert not operation.wait(0.1)
        gate.release()
        assert operation.failure().code == "CANCELLED"
    assert list(host.dm.maps) == [volume.uuid]
    (item,) = host.dm.maps.values()
    assert all(host.disk_of(dev) for dev in item.members)


@pytest.mark.parametrize("point", ["fsync", "dm.remove", "delete"])
def test_cancel_detach(host: FakeHost, point: str) -> None:
    """Goes on where it stopped."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    gate = host.block(point, times=None)
    operation = host.handle.detach(host.targets(2))
    assert gate.reached()
    operation.cancel()
    with at_most(0.5):
        assert operation.failure().code == "CANCELLED"
    gate.release()
    assert until(lambda: host.handle.detach(host.targets(2)).finish() and host.clean)


def test_cancel_when_complete(host: FakeHost) -> None:
    host.export()
    operation = host.handle.attach(host.targets(2))
    assert operation.wait(5.0)
    operation.cancel()
    operation.cancel()
    assert operation.finish().path_count == 2


def test_cancel_at_once(host: FakeHost) -> None:
    """Before the loop has even seen it, 50 times; both outcomes are right, nothing is left."""
    host.export()
    for _ in range(50):
        operation = host.handle.attach(host.targets(2))
        operation.cancel()
        if operation.code() != "CANCELLED":
            host.handle.detach(host.targets(2)).finish()
    assert until(lambda: host.clean)


def test_cancel_at_any_moment(host: FakeHost) -> None:
    """Sweeps through an attach in steps of half a millisecond."""
    host.export()
    for step in range(60):
        operation = host.handle.attach(host.targets(3))
        time.sleep(step * 0.0005)
        operation.cancel()
        assert operation.code() in ("OK", "CANCELLED")
        host.handle.detach(host.targets(3)).finish()
        assert until(lambda: host.clean, 2.0), f"step {step}"


# --- two operations on one volume -----------------------------------------------------------------


def intact(host: FakeHost) -> bool:
    (item,) = host.dm.maps.values()
    return len(item.members) == 2 and all(host.disk_of(dev) for dev in item.members)


def test_cancel_one_of_two_on_the_same_volume(host: FakeHost) -> None:
    """Both want the disks that the first one's scan found: cancelling it must not take them."""
    host.export()
    gate = host.block("inquiry", times=2)
    first = host.handle.attach(host.targets(2))
    assert gate.reached() and gate.reached()
    second = host.handle.attach(host.targets(2))
    second.wait(0.5)
    first.cancel()
    assert first.failure().code == "CANCELLED"
    gate.release()
    second.finish()
    assert not until(lambda: not intact(host), 0.5)


def test_again_while_the_first_is_undone(host: FakeHost) -> None:
    """The caller tries again as soon as it hears of the timeout, while undoing goes on."""
    host.export()
    inquiry = host.block("inquiry", times=2)
    delete = host.block("delete", times=2)
    assert host.handle.attach(host.targets(2), timeout=0.5).failure().code == "TIMEOUT"
    assert delete.reached() and delete.reached()
    second = host.handle.attach(host.targets(2))
    second.wait(0.5)
    delete.release()
    inquiry.release()
    second.finish()
    assert not until(lambda: not intact(host), 0.5)


def test_attach_after_a_detach_that_was_given_up(host: FakeHost) -> None:
    """Its thread is still about to remove the map, which the attach has just joined."""
    host.export()
    host.handle.attach(host.targets(2)).finish()
    gate = host.block("fsync")
    assert host.handle.detach(host.targets(2), timeout=0.5).failure().code == "TIMEOUT"
    attach = host.handle.attach(host.targets(2), timeout=5.0)
    attach.wait(0.5)
    gate.release()
    attach.finish()
    assert not until(lambda: not host.dm.maps, 0.3)


# --- descriptors of operations --------------------------------------------------------------------


def test_poll(host: FakeHost) -> None:
    host.export()
    host.iscsid.login_delay = 0.2
    operation = host.handle.attach(host.targets(2))
    poller = select.poll()
    poller.register(host.library.c.manypath_operation_fd(operation.c), select.POLLIN)
    assert not poller.poll(50)
    assert not operation.wait(0.0)
    assert poller.poll(5000)
    assert operation.wait(0.0)
    assert operation.finish().path_count == 2


# --- closing --------------------------------------------------------------------------------------


def test_close_with_operations(host: FakeHost) -> None:
    """All are answered, and may be collected afterwards."""
    host.export()
    host.iscsid.login_delay = 5.0
    handle = host.open()
    operations = [handle.attach(host.listen(2), timeout=9.0) for _ in range(5)]
    assert until(lambda: host.logins >= 5)
    operations += [handle.attach(host.listen(2), timeout=9.0) for _ in range(5)]
    with at_most(0.5):
        handle.close()
    for operation in operations:
        error = operation.failure()
        assert error.code == "CANCELLED"
        assert "closed" in error.message


def test_close_with_a_complete_operation(host: FakeHost) -> None:
    volume = host.export()
    handle = host.open()
    operation = handle.attach(host.targets(2))
    assert operation.wait(5.0)
    handle.close()
    assert operation.finish().wwid == volume.wwid


def test_close_at_any_moment(host: FakeHost) -> None:
    host.export()
    for step in range(40):
        handle = host.open()
        operations = [
            handle.attach(host.targets(3)),
            handle.detach(host.targets(3, lun=2)),
        ]
        time.sleep(step * 0.0005)
        handle.close()
        for operation in operations:
            assert operation.code() in ("OK", "CANCELLED")
    assert until(lambda: worker_threads() == 0)


def test_close_unused(host: FakeHost) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        host.open().close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert worker_threads() == 0


# --- forking --------------------------------------------------------------------------------------


def in_child(action: Callable[[], int]) -> int:
    """The exit status of a forked child that runs this."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = action()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def test_fork(host: FakeHost) -> None:
    """The child cannot use the handle, but may close it; the parent goes on."""
    volume = host.export()
    handle = host.handle
    handle.attach(host.targets(2)).finish()

    def child() -> int:
        codes = []
        for begin in (handle.attach, handle.detach):
            try:
                begin(host.targets(2))
            except Failure as error:
                codes.append(error.code)
        handle.close()
        return 0 if codes == ["FORKED", "FORKED"] else 1

    assert in_child(child) == 0
    assert handle.attach(host.targets(2)).finish().wwid == volume.wwid


def test_fork_with_an_operation_in_flight(host: FakeHost) -> None:
    """The child leaves the parent's operation alone: closing does not touch it."""
    volume = host.export()
    host.iscsid.login_delay = 0.3
    operation = host.handle.attach(host.targets(2))
    assert until(lambda: host.logins == 2)

    def child() -> int:
        host.handle.close()
        return 0

    assert in_child(child) == 0
    assert operation.finish().wwid == volume.wwid


def test_fork_and_wait(host: FakeHost) -> None:
    """A child that waits for its parent's operation is not left hanging for ever."""
    host.export()
    host.iscsid.login_delay = 60.0
    operation = host.handle.attach(host.listen(2), timeout=3.0)
    assert until(lambda: host.logins == 2)

    def child() -> int:
        return 0 if not operation.wait(0.1) else 1

    assert in_child(child) == 0
    operation.cancel()
    assert operation.failure().code == "CANCELLED"


def test_fork_cancel(host: FakeHost) -> None:
    """A child cannot cancel its parent's operation."""
    volume = host.export()
    host.iscsid.login_delay = 0.5
    operation: Operation = host.handle.attach(host.targets(2))
    assert until(lambda: host.logins == 2)

    def child() -> int:
        operation.cancel()
        return 0

    assert in_child(child) == 0
    assert operation.finish().wwid == volume.wwid


def test_scan_that_ends_after_the_attach(host: FakeHost) -> None:
    """What it finds is nobody's, in a session that is somebody else's."""
    host.export()
    host.add_session(host.targets()[0])
    gate = host.block("scan")
    error = host.handle.attach(host.targets(1), timeout=0.5).failure()
    assert error.code == "TIMEOUT"
    gate.release()
    assert until(lambda: host.passed("delete") == ["sda"])
    assert until(lambda: not host.disks)
    assert len(host.sessions) == 1


def test_last_path_comes_in_the_last_moment(host: FakeHost) -> None:
    """After the time for paths, before the timeout; another portal is silent."""
    host.export()
    (dead,) = host.listen()
    host.iscsid.handlers[LOGIN] = lambda request: (
        Answer(delay=60.0)
        if request.fields is not None and request.fields["port"] == dead.port
        else Default()
    )
    gate = host.block("inquiry", "sdb")
    operation = host.handle.attach([*host.targets(2), dead], timeout=6.0, min_paths=2)
    assert gate.reached()
    assert not operation.wait(5.55)
    gate.release()
    made = operation.finish()
    assert [path.state for path in made.paths] == ["ACTIVE", "ACTIVE", "PENDING"]
