"""Verified I/O: a program that writes and reads a block device and knows what must be there.

    python3 -P verified_io.py DEVICE        until its input ends; then one line of JSON

Every block carries its place, its generation and bytes that follow from both, so a block that is
old, of another place, torn or foreign is told from the right one. Each thread owns blocks, and uses
O_DIRECT. A read, in between and of all blocks at the end, must give the generation that was
acknowledged last; after a failed write, which may have happened or not, the one before is right
too. A device that grows is used up to its new end.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BLOCK = 4096
HEADER = struct.Struct("<8sQQ")
MAGIC = b"manypath"
THREADS = 4
PLACES = 64  # blocks of each thread, spread over the device; as many again when it has grown
EXAMPLES = 8


def block(offset: int, generation: int) -> bytes:
    header = HEADER.pack(MAGIC, offset, generation)
    return header + hashlib.shake_128(header).digest(BLOCK - len(header))


def describe(data: bytes) -> str:
    """What a wrong block is, for the report."""
    magic, offset, generation = HEADER.unpack_from(data)
    if magic != MAGIC:
        return "not a block of ours"
    whole = "" if data == block(offset, generation) else ", torn"
    return f"generation {generation} of offset {offset}{whole}"


@dataclass
class Findings:
    """What happened, of all threads."""

    writes: int = 0
    reads: int = 0
    errors: int = 0
    wrong: int = 0
    slowest: float = 0.0  # seconds
    examples: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, what: str, example: str = "") -> None:
        with self.lock:
            setattr(self, what, getattr(self, what) + 1)
            if example and len(self.examples) < EXAMPLES:
                self.examples.append(example)

    def timed(self, seconds: float) -> None:
        with self.lock:
            self.slowest = max(self.slowest, seconds)

    def report(self) -> str:
        names = ("writes", "reads", "errors", "wrong", "slowest", "examples")
        return json.dumps({name: getattr(self, name) for name in names})


class Worker(threading.Thread):
    """Writes and reads the blocks whose number is its own, modulo the number of threads."""

    def __init__(self, device: str, number: int, over: threading.Event, found: Findings) -> None:
        super().__init__()
        self._fd = os.open(device, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        self._number, self._over, self._found = number, over, found
        self._buffer = mmap.mmap(-1, BLOCK)  # page-aligned, as O_DIRECT wants it
        self._chance = random.Random(number)
        self._size = 0
        self._places: list[int] = []
        self._right: dict[int, set[int]] = {}  # generations that a block may have, by offset
        self._newest: dict[int, int] = {}

    def run(self) -> None:
        turn = 0
        while not self._over.is_set():
            if turn % PLACES == 0:
                self._look_at_size()
            turn += 1
            offset = self._chance.choice(self._places)
            if offset in self._right and self._chance.random() < 0.5:
                self._read(offset)
            else:
                self._write(offset)
        for offset in self._right:
            self._read(offset)
        os.close(self._fd)

    def _look_at_size(self) -> None:
        size = os.lseek(self._fd, 0, os.SEEK_END)
        if size == self._size:
            return
        first, last = self._size // BLOCK // THREADS, size // BLOCK // THREADS
        chosen = {*self._chance.sample(range(first, last), PLACES - 1), last - 1}
        self._places += [(number * THREADS + self._number) * BLOCK for number in sorted(chosen)]
        self._size = size

    def _timed(self, call: Callable[..., int], offset: int) -> str:
        """pread or pwrite of the buffer; why it failed, or nothing."""
        begin = time.monotonic()
        try:
            done = call(self._fd, [self._buffer], offset)
        except OSError as error:
            return str(error)
        else:
            return "" if done == BLOCK else f"{done} bytes of {BLOCK}"
        finally:
            self._found.timed(time.monotonic() - begin)

    def _write(self, offset: int) -> None:
        generation = self._newest.get(offset, 0) + 1
        self._newest[offset] = generation
        self._buffer[:] = block(offset, generation)
        failure = self._timed(os.pwritev, offset)
        self._found.count("writes")
        if not failure:
            self._right[offset] = {generation}
            return
        self._found.count("errors", f"write at {offset}: {failure}")
        if offset in self._right:  # else nobody knows what is there
            self._right[offset].add(generation)

    def _read(self, offset: int) -> None:
        failure = self._timed(os.preadv, offset)
        self._found.count("reads")
        if failure:
            self._found.count("errors", f"read at {offset}: {failure}")
            return
        data = bytes(self._buffer)
        right = self._right[offset]
        if not any(data == block(offset, generation) for generation in right):
            self._found.count("wrong", f"{offset}: {describe(data)}, wanted {sorted(right)}")


def main(device: str) -> None:
    found, over = Findings(), threading.Event()
    workers = [Worker(device, number, over, found) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    os.write(1, b"begun\n")
    sys.stdin.read()
    over.set()
    for worker in workers:
        worker.join()
    print(found.report())


if __name__ == "__main__":
    main(sys.argv[1])
