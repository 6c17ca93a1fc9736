# SPDX-License-Identifier: Apache-2.0
"""The extension on a fake C library: conversion, errors, the GIL, signals, lifetime."""

from __future__ import annotations

import gc
import json
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from types import FrameType, ModuleType
from typing import Any

import pytest

from manypath import Credentials, Flush, NamedPortal, PathState, Portal, Target
from manypath.errors import (
    AuthenticationError,
    DeviceError,
    HostNameError,
    InUseError,
    InvalidRequestError,
    LogoutError,
    PortalNoAnswerError,
    SystemCallError,
    TargetProtocolError,
)

V6 = Portal(ip_address("2001:db8::1"), 3261)
COUNT = 5


def targets(behaviour: str, count: int = COUNT) -> tuple[Target, ...]:
    return tuple(Target(V6, f"iqn.fake:{behaviour}", 2**63 - 1 - i) for i in range(count))


@pytest.fixture
def handle(core_on_fake_library: ModuleType) -> Iterator[Any]:
    """A handle, and afterwards the proof that nothing is left of the test's operations."""
    handle = core_on_fake_library.Handle()
    before = live(handle)
    yield handle
    gc.collect()
    assert live(handle) == before


def live(handle: Any) -> int:
    """Objects of the fake library that were not freed."""
    return int(handle.inventory().maps[0].open_count)


def test_version(core_on_fake_library: ModuleType) -> None:
    assert core_on_fake_library.version() == "0.0.0-fake"


def test_attach(handle: Any) -> None:
    attachment = handle.attach(targets("ok"), 1500, 2)
    assert attachment.path == "/dev/dm-2"
    assert attachment.device == "dm-2"
    assert (attachment.name, attachment.wwid) == ("mpatha", "36001405")
    assert attachment.size_bytes == 1 << 40
    assert attachment.map_existed is True
    assert attachment.multipathd_running is False
    assert attachment.warnings == ("not UTF-8: \\xff",)
    assert attachment.timings.queue == 1e-6
    assert attachment.timings.total == 1.5
    failed, pending, active, inactive, unused = attachment.paths
    assert [path.state for path in attachment.paths] == list(PathState)
    assert [path.lun for path in attachment.paths] == [2**63 - 1 - i for i in range(COUNT)]
    assert active.portal == V6
    assert active.iqn == "iqn.fake:ok"
    assert (active.sid, active.device) == (7, "sda")
    assert active.hctl == f"1:0:0:{active.lun}"
    assert active.session_existed is True
    assert active.times.login_begin == 0.0015
    assert active.times.login_end is None
    assert active.times.identity_end == 2.5
    assert active.error is None
    assert (pending.sid, pending.hctl, pending.device) == (None, None, None)
    assert (inactive.error, unused.error) == (None, None)
    assert type(failed.error) is AuthenticationError
    assert str(failed.error) == "who are you?"


def test_detach(handle: Any) -> None:
    detachment = handle.detach(targets("ok"), 1000)
    assert detachment.map_removed is True
    assert detachment.devices_removed == 4
    assert detachment.sessions_removed == 3
    assert detachment.sessions_kept == 1
    assert (detachment.flush, detachment.errors) == (Flush.DONE, ())
    assert detachment.warnings == ("not UTF-8: \\xff",)
    assert detachment.timings.flush == 0.005


def test_extend(handle: Any) -> None:
    extension = handle.extend(targets("ok"), 1000)
    assert (extension.path, extension.device, extension.wwid) == ("/dev/dm-3", "dm-3", "36001405")
    assert (extension.old_size_bytes, extension.size_bytes) == (1 << 40, 1 << 41)
    assert extension.multipathd_running is True
    assert [path.state for path in extension.paths] == list(PathState)
    assert type(extension.paths[0].error) is AuthenticationError
    assert extension.warnings == ("size 0",)
    assert (extension.timings.rescan, extension.timings.total) == (0.005, 0.007)
    with pytest.raises(DeviceError, match="still old"):
        handle.extend(targets("fail"), 1000)
    with pytest.raises(InvalidRequestError, match="refused"):
        handle.extend(targets("refuse"), 1000)


def test_requests_are_told_in_full(handle: Any) -> None:
    chap = Credentials("user", "secret", "them", "gehe\u00efm".encode(), ("SHA3-256", "MD5"))
    sums = [sum(b"secret"), sum("gehe\u00efm".encode())]
    shown = f"chap user 6/{sums[0]} them 7/{sums[1]} 8 5"
    assert handle.attach(targets("ok"), 1000, 1, chap=chap).warnings == (shown,)
    assert handle.discover(V6, 1000, chap=chap)[0].iqn == shown
    one_way = Credentials("user", "gehe\u00efm")
    shown = f"chap user 7/{sums[1]} - 0/0 5"
    assert handle.attach(targets("ok"), 1000, 1, chap=one_way).warnings == (shown,)
    assert handle.attach(targets("ok"), 1000, 1, single_path=True).warnings == ("single path",)
    shown = "wwid 3600 serial g\u00ef"
    made = handle.attach(targets("ok"), 1000, 1, wwid="3600", serial="g\u00ef")
    assert made.warnings == (shown,)
    made = handle.attach(targets("ok"), 1000, 1, serial="4711")
    assert made.warnings == ("wwid - serial 4711",)
    assert handle.detach(targets("ok"), 1000, whole_map=True).warnings == ("whole map",)
    assert handle.extend(targets("ok"), 1000, size_bytes=2**63).warnings == (f"size {2**63}",)
    paths = handle.attach(targets("ok", 2), 1000, 1, candidates=targets("ok", 3)).paths
    assert [path.iqn for path in paths] == ["iqn.fake:ok"] * 2 + ["iqn.candidate"] * 3


def test_discover(handle: Any) -> None:
    first, second, third = handle.discover(V6, 1000)
    assert (first.iqn, first.portal, first.tag) == ("iqn.one", Portal.parse("192.0.2.1"), 1)
    assert (second.portal, second.tag) == (Portal.parse("[2001:db8::2]:3261"), None)
    assert (third.portal, third.tag) == (NamedPortal("storage.example.org", 3262), 65535)
    with pytest.raises(TargetProtocolError, match="nonsense"):
        handle.discover(V6, 1000, initiator="iqn.fake:fail")
    with pytest.raises(InvalidRequestError, match="refused"):
        handle.discover(V6, 1000, initiator="iqn.fake:refuse")


def test_resolve(handle: Any) -> None:
    assert handle.resolve("iqn.fake:ok", 1000) == ("192.0.2.1", "2001:db8::1")
    with pytest.raises(HostNameError, match="no such name"):
        handle.resolve("iqn.fake:fail", 1000)


def test_inventory(handle: Any) -> None:
    inventory = handle.inventory()
    first, second = inventory.sessions
    assert (first.sid, first.host, first.state) == (7, 1, "LOGGED_IN")
    assert first.portal == Portal(ip_address("2001:db8::1"), 3260)
    assert second.portal is None  # a host name
    used, unused = inventory.disks
    assert (used.device, used.hctl, used.map) == ("sda", "1:0:2:3", "dm-0")
    assert used.path_state is PathState.ACTIVE
    assert (unused.map, unused.path_state) == (None, None)
    (found,) = inventory.maps
    assert (found.device, found.path_count, found.active_path_count) == ("dm-0", 2, 1)
    assert inventory.maps_known is True


def test_inventory_fails(core_on_fake_library: ModuleType) -> None:
    with pytest.raises(SystemCallError, match="no sysfs"):
        core_on_fake_library.Handle(dev_root="/fail").inventory()


def test_dev_root(core_on_fake_library: ModuleType) -> None:
    handle = core_on_fake_library.Handle(dev_root="/host/dev")
    assert handle.attach(targets("ok"), 1000, 1).path == "/host/dev/dm-1"


def test_failure_carries_everything(handle: Any) -> None:
    with pytest.raises(PortalNoAnswerError) as caught:
        handle.attach(targets("fail"), 1000, 1)
    error = caught.value
    assert str(error) == "nobody there"
    assert (error.code_name, error.phase) == ("NO_ANSWER", "login")
    assert (error.errno, error.iscsid_code, error.retryable) == (5, 8, True)
    assert error.portal == Portal(ip_address("192.0.2.1"), 3260)
    assert [path.state for path in error.paths] == list(PathState)
    with pytest.raises(InUseError, match="in use") as caught_in_use:
        handle.detach(targets("fail"), 1000)
    assert caught_in_use.value.paths == ()
    assert caught_in_use.value.detachment is None


def test_failed_detach_with_force(handle: Any) -> None:
    """What was done all the same comes with the error."""
    with pytest.raises(InUseError, match="in use") as caught:
        handle.detach(targets("fail"), 1000, force=True)
    detachment = caught.value.detachment
    assert detachment is not None
    assert detachment.flush is Flush.FAILED
    assert [str(error) for error in detachment.errors] == ["in use", "stays"]
    assert [type(error) for error in detachment.errors] == [InUseError, LogoutError]
    assert detachment.devices_removed == 4
    twin = pickle.loads(pickle.dumps(caught.value))
    assert twin.as_dict() == caught.value.as_dict()
    assert json.loads(json.dumps(twin.as_dict()))["detachment"]["flush"] == "failed"


def test_refused_by_begin(handle: Any) -> None:
    with pytest.raises(InvalidRequestError, match="refused"):
        handle.attach(targets("refuse"), 1, 1)
    with pytest.raises(InvalidRequestError, match="refused"):
        handle.detach((), 1)


def test_open_refuses(core_on_fake_library: ModuleType) -> None:
    with pytest.raises(InvalidRequestError, match="logins_in_flight"):
        core_on_fake_library.Handle(logins_in_flight=33)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda h: h.attach(targets("ok"), -1, 1), OverflowError),
        (lambda h: h.attach(targets("ok"), 2**32, 1), OverflowError),
        (lambda h: h.attach((Target(V6, "iqn.fake:ok", 2**64),), 1, 1), OverflowError),
        (lambda h: h.attach((Target(V6, "iqn.fake:\0ok", 1),), 1, 1), ValueError),
        (lambda h: h.attach((Target(V6, b"iqn", 1),), 1, 1), TypeError),  # type: ignore[arg-type]
        (lambda h: h.attach((None,), 1, 1), AttributeError),
        (lambda h: h.detach(None, 1), TypeError),
        (lambda h: h.extend(targets("ok"), 1, size_bytes=-1), OverflowError),
        (lambda h: type(h)(sysfs_root=5), TypeError),
        (lambda h: type(h)("/sys"), TypeError),
    ],
)
def test_wrong_arguments_leave_nothing_behind(
    handle: Any, call: Callable[[Any], object], expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        call(handle)


def test_repeated_calls_leave_nothing_behind(handle: Any) -> None:
    for _ in range(1000):
        handle.attach(targets("ok"), 1, 1)
        with pytest.raises(PortalNoAnswerError):
            handle.attach(targets("fail"), 1, 1)
        handle.detach(targets("ok"), 1)
        handle.extend(targets("ok"), 1)
        handle.discover(V6, 1)
        handle.resolve("iqn.fake:ok", 1)


def test_the_gil_is_free_while_waiting(handle: Any) -> None:
    threads = [
        threading.Thread(target=handle.attach, args=(targets("slow"), 1000, 1)) for _ in range(8)
    ]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    turns = 0
    while any(thread.is_alive() for thread in threads):
        turns += 1
        time.sleep(0.001)
    assert time.monotonic() - began < 8 * 0.3 / 2
    assert turns > 10


class Interrupted(BaseException):
    """Raised by a signal handler."""


@pytest.fixture
def alarms() -> Iterator[list[float]]:
    """SIGALRM after 50 ms and every 10 ms from then on; the first one raises."""
    seen: list[float] = []

    def ring(signum: int, frame: FrameType | None) -> None:
        seen.append(time.monotonic())
        if len(seen) == 1:
            raise Interrupted

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.01)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


STUCK: dict[str, Callable[[Any], object]] = {
    "attach": lambda handle: handle.attach(targets("stuck"), 60000, 1),
    "detach": lambda handle: handle.detach(targets("stuck"), 60000),
    "extend": lambda handle: handle.extend(targets("stuck"), 60000),
    "discover": lambda handle: handle.discover(V6, 60000, initiator="iqn.fake:stuck"),
    "resolve": lambda handle: handle.resolve("iqn.fake:stuck", 60000),
}


@pytest.mark.parametrize("name", STUCK)
def test_a_signal_handler_that_raises_cancels(handle: Any, alarms: list[float], name: str) -> None:
    with pytest.raises(Interrupted):
        STUCK[name](handle)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert alarms


def test_a_signal_handler_that_returns_does_not_cancel(handle: Any) -> None:
    seen: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda signum, _: seen.append(signum))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        handle.attach(targets("slow"), 1000, 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert seen == [signal.SIGALRM]


def test_a_handle_is_closed_when_nothing_refers_to_it(
    core_on_fake_library: ModuleType, handle: Any
) -> None:
    before = live(handle)
    other = core_on_fake_library.Handle()
    assert live(handle) == before + 1
    thread = threading.Thread(target=other.attach, args=(targets("slow"), 1000, 1))
    thread.start()
    del other
    time.sleep(0.05)
    assert live(handle) == before + 2  # the operation keeps its handle
    thread.join()
    del thread
    gc.collect()
    assert live(handle) == before
