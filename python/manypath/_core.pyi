# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import final

from manypath._types import (
    Attachment,
    Credentials,
    Detachment,
    DiscoveredTarget,
    Extension,
    Inventory,
    Target,
)
from manypath.address import Portal

def version() -> str: ...

@final
class Handle:
    def __new__(
        cls,
        *,
        sysfs_root: str | None = None,
        dev_root: str | None = None,
        proc_root: str | None = None,
        iscsid_socket: str | None = None,
        iscsid_pidfile: str | None = None,
        layout_dir: str | None = None,
        multipath_dir: str | None = None,
        multipath_run_dir: str | None = None,
        multipathd_socket: str | None = None,
        multipathd_pidfile: str | None = None,
        initiator_file: str | None = None,
        runtime_dir: str | None = None,
        udev_data: str | None = None,
        daemon_uid: int = 0,
        logins_in_flight: int = 0,
        worker_threads: int = 0,
    ) -> Handle: ...
    def attach(
        self,
        targets: Sequence[Target],
        timeout_ms: int,
        min_paths: int,
        *,
        candidates: Sequence[Target] = (),
        chap: Credentials | None = None,
        single_path: bool = False,
        wwid: str | None = None,
        serial: str | None = None,
    ) -> Attachment: ...
    def detach(
        self,
        targets: Sequence[Target],
        timeout_ms: int,
        *,
        whole_map: bool = False,
        force: bool = False,
    ) -> Detachment: ...
    def extend(
        self, targets: Sequence[Target], timeout_ms: int, *, size_bytes: int = 0
    ) -> Extension: ...
    def discover(
        self,
        portal: Portal,
        timeout_ms: int,
        *,
        initiator: str | None = None,
        chap: Credentials | None = None,
    ) -> tuple[DiscoveredTarget, ...]: ...
    def resolve(self, host: str, timeout_ms: int) -> tuple[str, ...]: ...
    def inventory(self) -> Inventory: ...
