#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the request layout of an open-iscsi release, and turn layouts into a C table.

    gen_layout.py measure --headers DIR --name L5-lp64-glibc --versions 2.1.1-2.1.10 > x.layout
    gen_layout.py table native/layouts/*.layout > native/src/iscsid_layout.inc
    gen_layout.py table --check native/layouts/*.layout

`measure` compiles a probe against an unpacked open-iscsi source tree and keeps numbers only; no
text of those headers (GPL) enters this project. The format is described in docs/iscsid-layouts.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

NATIVE = Path(__file__).resolve().parent.parent
HEADER = NATIVE / "src" / "iscsid_layout.h"
TABLE = NATIVE / "src" / "iscsid_layout.inc"

REPLY_SIZE = 2464
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,30}")
VERSIONS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~,-]{0,46}")
KEYS = ("name", "versions", "request_size", "static_discovery")

# Our field name -> members below the node record, or an absolute one when it starts with "/". The
# first that compiles wins. None compiling is an error unless the name is in OPTIONAL.
_SESSION = "session."
_CONN = "conn[0]."
_IFACE = "iface."
FIELDS: dict[str, tuple[str, ...]] = {
    "sid": ("/u.session.sid",),
    "target_name": ("name",),
    "tpgt": ("tpgt",),
    "startup": ("startup",),
    "leading_login": ("leading_login",),
    "initial_cmdsn": (_SESSION + "initial_cmdsn",),
    "reopen_max": (_SESSION + "reopen_max",),
    "xmit_thread_priority": (_SESSION + "xmit_thread_priority",),
    "cmds_max": (_SESSION + "cmds_max",),
    "queue_depth": (_SESSION + "queue_depth",),
    "initial_login_retry_max": (_SESSION + "initial_login_retry_max",),
    "login_redirect_max": (_SESSION + "login_redirect_max",),
    "nr_sessions": (_SESSION + "nr_sessions",),
    "scan": (_SESSION + "scan",),
    "auth_method": (_SESSION + "auth.authmethod",),
    "username": (_SESSION + "auth.username",),
    "password": (_SESSION + "auth.password",),
    "password_length": (_SESSION + "auth.password_length",),
    "username_in": (_SESSION + "auth.username_in",),
    "password_in": (_SESSION + "auth.password_in",),
    "password_in_length": (_SESSION + "auth.password_in_length",),
    "chap_algs": (_SESSION + "auth.chap_algs",),
    "replacement_timeout": (_SESSION + "timeo.replacement_timeout",),
    "abort_timeout": (_SESSION + "err_timeo.abort_timeout",),
    "host_reset_timeout": (_SESSION + "err_timeo.host_reset_timeout",),
    "lu_reset_timeout": (_SESSION + "err_timeo.lu_reset_timeout",),
    "tgt_reset_timeout": (_SESSION + "err_timeo.tgt_reset_timeout",),
    "initial_r2t": (_SESSION + "iscsi.InitialR2T",),
    "immediate_data": (_SESSION + "iscsi.ImmediateData",),
    "first_burst_length": (_SESSION + "iscsi.FirstBurstLength",),
    "max_burst_length": (_SESSION + "iscsi.MaxBurstLength",),
    "default_time2wait": (_SESSION + "iscsi.DefaultTime2Wait",),
    "default_time2retain": (_SESSION + "iscsi.DefaultTime2Retain",),
    "max_connections": (_SESSION + "iscsi.MaxConnections",),
    "max_outstanding_r2t": (_SESSION + "iscsi.MaxOutstandingR2T",),
    "erl": (_SESSION + "iscsi.ERL",),
    "fast_abort": (_SESSION + "iscsi.FastAbort",),
    "multiple": (_SESSION + "multiple",),
    "reopen_log_freq": (_SESSION + "sess_reopen_log_freq", _SESSION + "conn_reopen_log_freq"),
    "conn_startup": (_CONN + "startup",),
    "address": (_CONN + "address",),
    "port": (_CONN + "port",),
    "window_size": (_CONN + "tcp.window_size",),
    "type_of_service": (_CONN + "tcp.type_of_service",),
    "login_timeout": (_CONN + "timeo.login_timeout",),
    "logout_timeout": (_CONN + "timeo.logout_timeout",),
    "auth_timeout": (_CONN + "timeo.auth_timeout",),
    "active_timeout": (_CONN + "timeo.active_timeout",),
    "noop_out_interval": (_CONN + "timeo.noop_out_interval",),
    "noop_out_timeout": (_CONN + "timeo.noop_out_timeout",),
    "max_recv_segment": (_CONN + "iscsi.MaxRecvDataSegmentLength",),
    "max_xmit_segment": (_CONN + "iscsi.MaxXmitDataSegmentLength",),
    "header_digest": (_CONN + "iscsi.HeaderDigest",),
    "data_digest": (_CONN + "iscsi.DataDigest",),
    "iface_name": (_IFACE + "name",),
    "netdev": (_IFACE + "netdev",),
    "ipaddress": (_IFACE + "ipaddress",),
    "hwaddress": (_IFACE + "hwaddress",),
    "transport_name": (_IFACE + "transport_name",),
    "iname": (_IFACE + "iname",),
    "disc_type": ("disc_type",),
}
OPTIONAL = {"login_redirect_max", "scan", "chap_algs", "reopen_log_freq", "ipaddress"}


class LayoutError(Exception):
    """Something a person has to look at; printed without a traceback."""


@dataclass
class Layout:
    name: str
    versions: str
    request_size: int
    static_discovery: int
    fields: dict[str, tuple[int, int]] = field(default_factory=dict)

    def text(self, comments: list[str]) -> str:
        lines = [f"# {line}" for line in comments]
        lines += [f"{key} {getattr(self, key)}" for key in KEYS]
        lines.append("# field offset-in-request width")
        lines += [f"{name} {off} {width}" for name, (off, width) in self.fields.items()]
        return "\n".join(lines) + "\n"


def parse(path: Path) -> Layout:
    """Read one of our own files. The C parser is the strict one; this one refuses the obvious."""
    keys: dict[str, str] = {}
    fields: dict[str, tuple[int, int]] = {}
    for number, raw in enumerate(path.read_text("ascii").splitlines(), 1):
        words = raw.split("#", 1)[0].split()
        if not words:
            continue
        if words[0] in keys or words[0] in fields:
            raise LayoutError(f"{path}:{number}: '{words[0]}' twice")
        if words[0] in KEYS and len(words) == 2:
            keys[words[0]] = words[1]
        elif words[0] in FIELDS and len(words) == 3:
            fields[words[0]] = (int(words[1]), int(words[2]))
        else:
            raise LayoutError(f"{path}:{number}: not understood: {raw}")
    missing = (set(KEYS) - set(keys)) | (set(FIELDS) - set(fields) - OPTIONAL)
    if missing:
        raise LayoutError(f"{path}: missing: {', '.join(sorted(missing))}")
    check_words(keys["name"], keys["versions"])
    size = int(keys["request_size"])
    end = 8  # command and payload_len
    for name, (offset, width) in sorted(fields.items(), key=lambda item: item[1]):
        if offset < end or offset + width > size:
            raise LayoutError(f"{path}: '{name}' overlaps or lies outside of the request")
        end = offset + width
    ordered = {name: fields[name] for name in FIELDS if name in fields}
    return Layout(keys["name"], keys["versions"], size, int(keys["static_discovery"]), ordered)


def check_words(name: str, versions: str) -> None:
    if not NAME.fullmatch(name):
        raise LayoutError(f"name '{name}': want at most 31 of A-Z a-z 0-9 . _ + ~ -")
    if not VERSIONS.fullmatch(versions):
        raise LayoutError(f"versions '{versions}': want at most 47 of A-Z a-z 0-9 . _ + ~ , -")


# --- measure -------------------------------------------------------------------------------------


class Probe:
    """Compiles small programs against one open-iscsi tree."""

    def __init__(self, headers: Path, cc: list[str], nihost: int | None, work: Path) -> None:
        if not (headers / "usr" / "mgmt_ipc.h").is_file():
            raise LayoutError(f"{headers}: no usr/mgmt_ipc.h; want an unpacked open-iscsi source")
        self.flags = [f"-I{headers / 'include'}", f"-I{headers / 'usr'}", "-D_GNU_SOURCE", "-w"]
        self.cc = cc
        self.work = work
        # glibc's NI_MAXHOST is 1025 and musl's 255; it is the only libc number in the layout.
        self.prologue = "#include <stddef.h>\n#include <stdio.h>\n#include <netdb.h>\n"
        if nihost is not None:
            self.prologue += f"#undef NI_MAXHOST\n#define NI_MAXHOST {nihost}\n"
        # mgmt_ipc.h needs some constants of the kernel interface; old trees lack size_t there.
        self.prologue += '#include <sys/socket.h>\n#include "mgmt_ipc.h"\n'

    def compiles(self, expression: str) -> bool:
        source = f"{self.prologue}int mp_probe[{expression} ? 1 : 2];\n"
        return self._cc(source, ["-fsyntax-only"]).returncode == 0

    def _cc(self, source: str, more: list[str]) -> subprocess.CompletedProcess[str]:
        path = self.work / "probe.c"
        path.write_text(source)
        command = [*self.cc, *self.flags, *more, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def numbers(self, expressions: dict[str, str]) -> dict[str, int]:
        body = "".join(
            f'    printf("{key} %lld\\n", (long long)({expression}));\n'
            for key, expression in expressions.items()
        )
        source = f"{self.prologue}int main(void)\n{{\n{body}    return 0;\n}}\n"
        binary = self.work / "probe"
        done = self._cc(source, ["-o", str(binary)])
        if done.returncode != 0:
            raise LayoutError(f"the probe does not compile:\n{done.stderr}")
        out = subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout
        return {key: int(value) for key, value in (line.split() for line in out.splitlines())}


def offset_of(path: str) -> str:
    return f"offsetof(iscsiadm_req_t, {path})"


def size_of(path: str) -> str:
    return f"sizeof(((iscsiadm_req_t *)0)->{path})"


def measure(options: argparse.Namespace) -> Layout:
    check_words(options.name, options.versions)
    with tempfile.TemporaryDirectory(prefix="mp-layout-") as scratch:
        probe = Probe(options.headers, options.cc.split(), options.libc_nihost, Path(scratch))
        if not probe.compiles("sizeof(iscsiadm_req_t)"):
            probe.numbers({"size": "sizeof(iscsiadm_req_t)"})  # raises with the compiler's words
        found: dict[str, str] = {}
        for name, members in FIELDS.items():
            paths = [m[1:] if m.startswith("/") else f"u.session.rec.{m}" for m in members]
            path = next((p for p in paths if probe.compiles(offset_of(p) + " + 1")), None)
            if path is not None:
                found[name] = path
            elif name not in OPTIONAL:
                raise LayoutError(f"this release has no '{name}' ({' or '.join(members)})")
        wanted = {
            "request": "sizeof(iscsiadm_req_t)",
            "reply": "sizeof(iscsiadm_rsp_t)",
            "command": offset_of("command"),
            "payload": offset_of("payload_len"),
            "reply_error": "offsetof(iscsiadm_rsp_t, err)",
            "reply_var": "offsetof(iscsiadm_rsp_t, u.config.var)",
            "static": "DISCOVERY_TYPE_STATIC",
        }
        for name, path in found.items():
            wanted[f"o.{name}"] = offset_of(path)
            wanted[f"w.{name}"] = size_of(path)
        got = probe.numbers(wanted)
    frame = (got["command"], got["payload"], got["o.sid"], got["reply_error"], got["reply_var"])
    if frame != (0, 4, 8, 4, 8) or got["reply"] != REPLY_SIZE:
        raise LayoutError(
            f"request header or reply changed ({frame}, reply {got['reply']}): "
            "the library itself has to be taught about this release"
        )
    fields = {name: (got[f"o.{name}"], got[f"w.{name}"]) for name in found}
    return Layout(options.name, options.versions, got["request"], got["static"], fields)


# --- table ---------------------------------------------------------------------------------------


def check_header() -> None:
    """The C list of fields is the one the parser uses; ours must be the same list."""
    rows = re.findall(r"^\s*X\((\w+), \w+, \d+, \d+, ([01])\)", HEADER.read_text(), re.MULTILINE)
    if [name for name, _ in rows] != list(FIELDS):
        raise LayoutError(f"{HEADER.name} and FIELDS in {Path(__file__).name} differ")
    if {name for name, required in rows if required == "0"} != OPTIONAL:
        raise LayoutError(f"{HEADER.name} and OPTIONAL in {Path(__file__).name} differ")


def table(paths: list[Path]) -> str:
    check_header()
    by_size: dict[int, tuple[Layout, Path]] = {}
    for path in sorted(paths):
        layout = parse(path)
        other = by_size.get(layout.request_size)
        if other is None:
            by_size[layout.request_size] = (layout, path)
        elif (other[0].fields, other[0].static_discovery) != (
            layout.fields,
            layout.static_discovery,
        ):
            raise LayoutError(
                f"{path} and {other[1]} are both {layout.request_size} bytes but differ: "
                "a probe by size cannot tell them apart"
            )
    lines = ["/* Made by native/tools/gen_layout.py from native/layouts; do not edit. */"]
    for size in sorted(by_size):
        layout = by_size[size][0]
        lines.append("{")
        lines.append(f'    .name = "{layout.name}",')
        lines.append(f'    .versions = "{layout.versions}",')
        lines.append(f"    .request_size = {size},")
        lines.append(f"    .static_discovery = {layout.static_discovery},")
        lines += [f"    .{name} = {{{o}, {w}}}," for name, (o, w) in layout.fields.items()]
        lines.append("},")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="what", required=True)
    one = commands.add_parser("measure", help="print the .layout of an open-iscsi source tree")
    one.add_argument("--headers", type=Path, required=True, help="unpacked source (usr/, include/)")
    one.add_argument("--libc-nihost", type=int, help="NI_MAXHOST of iscsid's libc: 255 for musl")
    one.add_argument("--cc", default="gcc", help="compiler and ABI switches")
    one.add_argument("--name", required=True)
    one.add_argument("--versions", required=True)
    two = commands.add_parser("table", help="print native/src/iscsid_layout.inc")
    two.add_argument("--check", action="store_true", help="compare instead; exit 1 if it differs")
    two.add_argument("layouts", type=Path, nargs="+")
    options = parser.parse_args(argv)
    try:
        if options.what == "measure":
            libc = "" if options.libc_nihost is None else f", NI_MAXHOST {options.libc_nihost}"
            comments = [
                f"open-iscsi {options.versions}, measured by native/tools/gen_layout.py{libc}",
                "See docs/iscsid-layouts.md.",
            ]
            text = measure(options).text(comments)
        else:
            text = table(options.layouts)
        if options.what == "table" and options.check:
            same = TABLE.is_file() and TABLE.read_text() == text
        else:
            sys.stdout.write(text)
            same = True
    except (LayoutError, OSError, ValueError) as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 1
    if not same:
        print(f"{TABLE} is not what the layouts give; run `table` again", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
