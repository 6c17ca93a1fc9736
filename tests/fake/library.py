# SPDX-License-Identifier: Apache-2.0
"""libmanypath_fake.so: the C library with the kernel replaced (seams.c), built and driven by cffi.

MANYPATH_FAKE_SANITIZE=address or =thread builds it with sanitizers; their run-time must then be
preloaded, which preload() says how to do. MANYPATH_FAKE_PATIENCE multiplies what tests allow beyond
the library's own times, for machines that are slow or busy; 4 with sanitizers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cffi

PROJECT = Path(__file__).resolve().parents[2]
NATIVE = PROJECT / "native"
SEAMS = Path(__file__).with_name("seams.c")

sys.path.insert(0, str(PROJECT / "tests" / "abi"))

from header import declarations  # noqa: E402

HOOKS = """
struct mp_fake_hooks {
    int (*dm_ioctl)(unsigned long request, void *argument);
    int (*inquiry)(const char *path, int page_code, uint8_t *page, int size);
    int (*size)(const char *path, uint64_t *ret_bytes);
    int (*ready)(const char *path);
    int (*port_groups)(const char *path, int extended, uint8_t *data, int size);
    int (*identity_check)(const char *path, uint64_t dev);
    int (*uevent_open)(void);
    int (*attribute)(const char *path, const char *text);
    int (*open_exclusive)(const char *path);
    int (*fsync)(const char *path);
    int (*capacity)(const char *path, uint64_t *ret_bytes);
    int (*opened)(const char *path, uint64_t *ret_dev);
};
void mp_fake_install(const struct mp_fake_hooks *all);
int mp_fake_listen(int fd, int backlog, bool stay);
void mp_fake_deny(const char *part, int number);
"""

PATIENCE = float(
    os.environ.get("MANYPATH_FAKE_PATIENCE", 4 if "MANYPATH_FAKE_SANITIZE" in os.environ else 1)
)

WRAPPED = ("write", "open", "openat", "fsync", "setxattr", "getxattr")
SANITIZERS = {
    "": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "thread": ["-fsanitize=thread"],
}
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


# --- building -------------------------------------------------------------------------------------


def preload(sanitizer: str) -> str | None:
    """None, or what LD_PRELOAD lacks for this sanitizer."""
    if not sanitizer or RUNTIMES[sanitizer] in os.environ.get("LD_PRELOAD", ""):
        return None
    found = subprocess.run(
        ["cc", f"-print-file-name={RUNTIMES[sanitizer]}"], check=True, capture_output=True
    )
    return found.stdout.decode().strip()


def build(folder: Path, sanitizer: str = "") -> Path:
    """Compile and link, unless the folder has the library of exactly these sources."""
    sources = [*sorted((NATIVE / "src").glob("*.c")), SEAMS]
    headers = sorted(NATIVE.glob("**/*.h"))
    included = sorted((NATIVE / "src").glob("*.inc"))
    flags = ["-std=c11", "-D_GNU_SOURCE", '-DMANYPATH_VERSION="0"', "-fPIC", "-pthread", "-g"]
    flags += ["-O1", "-fno-omit-frame-pointer", "-fvisibility=hidden", "-Wall", "-Wextra"]
    flags += [f"-I{NATIVE / 'include'}", f"-I{NATIVE / 'src'}", *SANITIZERS[sanitizer]]
    wraps = [f"-Wl,--wrap={name}" for name in WRAPPED]
    digest = hashlib.sha256(repr(flags + wraps).encode())
    for path in [*sources, *headers, *included]:
        digest.update(path.read_bytes())
    target = folder / f"libmanypath_fake{'-' if sanitizer else ''}{sanitizer}.so"
    stamp = target.with_suffix(".sha256")
    folder.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest()):
            _compile(target, sources, flags, wraps)
            stamp.write_text(digest.hexdigest())
    return target


def _compile(target: Path, sources: list[Path], flags: list[str], wraps: list[str]) -> None:
    objects = target.parent / f"objects-{os.getpid()}"
    objects.mkdir()
    made = [objects / f"{path.stem}.o" for path in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path, to: compile_one(flags, path, to), sources, made))
    new = objects / target.name
    subprocess.run(["cc", *flags, "-shared", *wraps, "-o", new, *made, "-lcrypto"], check=True)
    new.replace(target)
    shutil.rmtree(objects)


def compile_one(flags: list[str], source: Path, made: Path) -> None:
    subprocess.run(["cc", *flags, "-c", "-o", made, source], check=True)


# --- the library as Python sees it ----------------------------------------------------------------

ffi: Any = cffi.FFI()


class Target(NamedTuple):
    address: str
    port: int
    iqn: str
    lun: int


class Chap(NamedTuple):
    username: str
    password: bytes
    username_in: str | None = None
    password_in: bytes | None = None
    algorithms: tuple[int, ...] = ()


class Failure(Exception):  # noqa: N818
    """A struct manypath_error; `paths` and `detachment` where the function hands them out."""

    def __init__(
        self,
        error: SimpleNamespace,
        paths: Sequence[Any] = (),
        detachment: SimpleNamespace | None = None,
    ) -> None:
        super().__init__(f"{error.code} in {error.phase}: {error.message}")
        self.code: str = error.code
        self.phase: str = error.phase
        self.errno: int = error.sys_errno
        self.iscsid_code: int = error.iscsid_code
        self.address: str = error.address
        self.port: int = error.port
        self.message: str = error.message
        self.retryable: bool = error.retryable
        self.paths = list(paths)
        self.detachment: Any = detachment


FLUSHES = ("UNKNOWN", "DONE", "FAILED", "NOT_NEEDED")
STATES = ("FAILED", "PENDING", "ACTIVE", "INACTIVE", "UNUSED")


class Library:
    def __init__(self, path: Path) -> None:
        ffi.cdef(declarations() + HOOKS)
        self.c: Any = ffi.dlopen(str(path))

    def plain(self, value: Any) -> SimpleNamespace:
        """A struct as attributes: text, numbers, and structs in it; no pointers."""
        made = SimpleNamespace()
        kind = ffi.typeof(value)
        for name, field in (kind.item if kind.kind == "pointer" else kind).fields:
            item = getattr(value, name)
            if field.type.kind == "array":
                item = ffi.string(item).decode()
            elif field.type.kind == "struct":
                item = self.plain(item)
            elif field.type.kind == "pointer":
                continue
            setattr(made, name, item)
        if hasattr(made, "retryable"):
            made.code = ffi.string(self.c.manypath_code_name(made.code)).decode()
            made.phase = ffi.string(self.c.manypath_phase_name(made.phase)).decode()
        return made

    def paths(self, array: Any, count: int) -> list[SimpleNamespace]:
        found = [self.plain(array[i]) for i in range(count)]
        for path in found:
            path.state = STATES[path.state]
        return found

    def texts(self, array: Any, count: int) -> list[str]:
        return [ffi.string(array[i]).decode() for i in range(count)]


class Handle:
    """A struct manypath."""

    def __init__(self, library: Library, **options: str | int) -> None:
        self.library = library
        self.log: list[str] = []
        self._begin = time.monotonic()
        self._log = ffi.callback("manypath_log_fn", self._keep)
        given = ffi.new("struct manypath_options *")
        kept = []
        for name, value in options.items():
            if isinstance(value, str):
                kept.append(ffi.new("char[]", value.encode()))
                setattr(given, name, kept[-1])
            else:
                setattr(given, name, value)
        given.log = self._log
        given.log_level = library.c.MANYPATH_LOG_DEBUG
        made = ffi.new("struct manypath **")
        error = ffi.new("struct manypath_error *")
        if library.c.manypath_open(given, made, error) != 0:
            raise Failure(library.plain(error))
        self.c = made[0]

    def _keep(self, _userdata: Any, _level: int, message: Any) -> None:
        text = ffi.string(message).decode()
        self.log.append(text)
        print(f"{time.monotonic() - self._begin:8.3f} log {text}")

    def close(self) -> None:
        made, self.c = self.c, ffi.NULL
        self.library.c.manypath_close(made)

    def attach(
        self,
        targets: Iterable[Target],
        timeout: float = 10.0,
        min_paths: int = 0,
        *,
        candidates: Sequence[Target] = (),
        chap: Chap | None = None,
        single_path: bool = False,
        wwid: str | None = None,
        serial: str | None = None,
    ) -> Attach:
        fields: dict[str, Any] = {"min_paths": min_paths, "single_path": single_path}
        for name, text in (("wwid", wwid), ("serial", serial)):
            if text is not None:
                fields[name] = ffi.new("char[]", text.encode())
        return Attach(self, timeout, list(targets), candidates, chap, fields)

    def detach(
        self,
        targets: Iterable[Target],
        timeout: float = 10.0,
        *,
        whole_map: bool = False,
        force: bool = False,
    ) -> Detach:
        fields = {"whole_map": whole_map, "force": force}
        return Detach(self, timeout, list(targets), fields=fields)

    def extend(self, targets: Iterable[Target], timeout: float = 10.0, size: int = 0) -> Extend:
        return Extend(self, timeout, list(targets), fields={"size_bytes": size})

    def discover(
        self,
        address: str,
        port: int,
        timeout: float = 10.0,
        *,
        initiator: str | None = "iqn.2010-10.org.example:us",
        chap: Chap | None = None,
    ) -> Discover:
        return Discover(self, timeout, address, port, initiator, chap)

    def resolve(self, name: str, timeout: float = 10.0) -> Resolve:
        return Resolve(self, timeout, name)

    def inventory(self) -> SimpleNamespace:
        c = self.library.c
        made = ffi.new("struct manypath_inventory **")
        error = ffi.new("struct manypath_error *")
        if c.manypath_inventory_read(self.c, made, error) != 0:
            raise Failure(self.library.plain(error))
        found = made[0]
        result = self.library.plain(found)
        for name in ("session", "disk", "map"):
            array, count = getattr(found, f"{name}s"), getattr(found, f"{name}_count")
            setattr(result, f"{name}s", [self.library.plain(array[i]) for i in range(count)])
        c.manypath_inventory_free(found)
        return result


def chap_struct(chap: Chap | None) -> tuple[Any, list[Any]]:
    """The C struct, and what it points to."""
    if chap is None:
        return ffi.NULL, []
    made = ffi.new("struct manypath_chap *")
    kept = [made]
    for name in ("username", "username_in"):
        text = getattr(chap, name)
        if text is not None:
            kept.append(ffi.new("char[]", text.encode()))
            setattr(made, name, kept[-1])
    for name in ("password", "password_in"):
        secret = getattr(chap, name)
        if secret is not None:
            kept.append(ffi.new("char[]", secret + b"\0"))
            setattr(made, name, kept[-1])
            setattr(made, f"{name}_length", len(secret))
    for index, algorithm in enumerate(chap.algorithms):
        made.algorithms[index] = algorithm
    return made, kept


class Operation(ABC):
    """One that was begun; the classes below say which."""

    kind: str

    def __init__(self, handle: Handle, timeout: float, *arguments: Any) -> None:
        self.handle = handle
        self.timeout = timeout
        self.begun = time.monotonic()
        made = ffi.new("struct manypath_operation **")
        error = ffi.new("struct manypath_error *")
        begin = getattr(handle.library.c, f"manypath_{self.kind}_begin")
        if begin(handle.c, *arguments, made, error) != 0:
            raise Failure(handle.library.plain(error))
        self.c = made[0]

    def wait(self, seconds: float) -> bool:
        """True if it is complete."""
        result: int = self.handle.library.c.manypath_operation_wait(self.c, round(seconds * 1000))
        return result == 0

    def cancel(self) -> None:
        self.handle.library.c.manypath_operation_cancel(self.c)

    def finish(self, limit: float | None = None) -> Any:
        """The result. Never waits more than a second beyond the operation's own timeout."""
        limit = self.timeout + PATIENCE if limit is None else limit
        left = self.begun + limit - time.monotonic()
        assert self.wait(max(left, 0.0)), f"{self.kind} is not complete after {limit} s"
        operation, self.c = self.c, ffi.NULL
        return self.collect(operation)

    @abstractmethod
    def collect(self, operation: Any) -> Any:
        """What the C library's finish function hands out, as plain data; raises Failure."""

    def code(self) -> str:
        """How it ended, where more than one end is right."""
        try:
            self.finish()
        except Failure as error:
            return error.code
        return "OK"

    def failure(self, limit: float | None = None) -> Failure:
        try:
            result = self.finish(limit)
        except Failure as error:
            return error
        raise AssertionError(f"it succeeded: {result}")


class _OnTargets(Operation):
    def __init__(
        self,
        handle: Handle,
        timeout: float,
        targets: list[Target],
        candidates: Sequence[Target] = (),
        chap: Chap | None = None,
        fields: dict[str, int] | None = None,
    ) -> None:
        array = ffi.new("struct manypath_target[]", len(targets) + len(candidates))
        secrets, kept = chap_struct(chap)
        for item, target in zip(array, [*targets, *candidates], strict=True):
            address, iqn = (ffi.new("char[]", text.encode()) for text in (target[0], target[2]))
            kept += [address, iqn]
            item.address, item.port, item.iqn, item.lun = address, target.port, iqn, target.lun
        for index in range(len(candidates)):
            array[len(targets) + index].candidate = True
        request = ffi.new(f"struct manypath_{self.kind}_request *")
        request.targets, request.target_count = array, len(array)
        request.timeout_ms = round(timeout * 1000)
        for name, value in (fields or {}).items():
            setattr(request, name, value)
        if chap is not None:
            request.chap = secrets
        super().__init__(handle, timeout, request)


class Attach(_OnTargets):
    kind = "attach"

    def collect(self, operation: Any) -> SimpleNamespace:
        library, c = self.handle.library, self.handle.library.c
        error = ffi.new("struct manypath_error *")
        made = ffi.new("struct manypath_attachment **")
        paths = ffi.new("struct manypath_path **")
        count = ffi.new("size_t *")
        if c.manypath_attach_finish(operation, made, paths, count, error) != 0:
            found = library.paths(paths[0], count[0])
            c.manypath_paths_free(paths[0])
            raise Failure(library.plain(error), found)
        result = library.plain(made[0])
        result.paths = library.paths(made[0].paths, made[0].path_count)
        result.warnings = library.texts(made[0].warnings, made[0].warning_count)
        c.manypath_attachment_free(made[0])
        return result


class Detach(_OnTargets):
    kind = "detach"

    def collect(self, operation: Any) -> SimpleNamespace:
        library, c = self.handle.library, self.handle.library.c
        error = ffi.new("struct manypath_error *")
        made = ffi.new("struct manypath_detachment **")
        code = c.manypath_detach_finish(operation, made, error)
        result = self._detachment(made[0]) if made[0] != ffi.NULL else None
        c.manypath_detachment_free(made[0])
        if code != 0:
            raise Failure(library.plain(error), detachment=result)
        assert result is not None
        return result

    def _detachment(self, made: Any) -> SimpleNamespace:
        library = self.handle.library
        result = library.plain(made)
        result.flush = FLUSHES[result.flush]
        result.warnings = library.texts(made.warnings, made.warning_count)
        result.errors = [library.plain(made.errors[i]) for i in range(made.error_count)]
        return result


class Extend(_OnTargets):
    kind = "extend"

    def collect(self, operation: Any) -> SimpleNamespace:
        library, c = self.handle.library, self.handle.library.c
        error = ffi.new("struct manypath_error *")
        made = ffi.new("struct manypath_extension **")
        if c.manypath_extend_finish(operation, made, error) != 0:
            raise Failure(library.plain(error))
        result = library.plain(made[0])
        result.paths = library.paths(made[0].paths, made[0].path_count)
        result.warnings = library.texts(made[0].warnings, made[0].warning_count)
        c.manypath_extension_free(made[0])
        return result


class Discover(Operation):
    kind = "discover"

    def __init__(
        self,
        handle: Handle,
        timeout: float,
        address: str,
        port: int,
        initiator: str | None,
        chap: Chap | None,
    ) -> None:
        secrets, kept = chap_struct(chap)
        kept += [ffi.new("char[]", address.encode())]
        request = ffi.new("struct manypath_discover_request *")
        request.address, request.port = kept[-1], port
        request.timeout_ms = round(timeout * 1000)
        if initiator is not None:
            kept += [ffi.new("char[]", initiator.encode())]
            request.initiator = kept[-1]
        request.chap = secrets
        super().__init__(handle, timeout, request)

    def collect(self, operation: Any) -> SimpleNamespace:
        library, c = self.handle.library, self.handle.library.c
        error = ffi.new("struct manypath_error *")
        made = ffi.new("struct manypath_discovery **")
        if c.manypath_discover_finish(operation, made, error) != 0:
            raise Failure(library.plain(error))
        result = library.plain(made[0])
        count = made[0].target_count
        result.targets = [library.plain(made[0].targets[i]) for i in range(count)]
        c.manypath_discovery_free(made[0])
        return result


class Resolve(Operation):
    kind = "resolve"

    def __init__(self, handle: Handle, timeout: float, name: str) -> None:
        super().__init__(handle, timeout, ffi.new("char[]", name.encode()), round(timeout * 1000))

    def collect(self, operation: Any) -> list[str]:
        library, c = self.handle.library, self.handle.library.c
        error = ffi.new("struct manypath_error *")
        made = ffi.new("struct manypath_addresses **")
        if c.manypath_resolve_finish(operation, made, error) != 0:
            raise Failure(library.plain(error))
        found = library.texts(made[0].addresses, made[0].count)
        c.manypath_addresses_free(made[0])
        return found
