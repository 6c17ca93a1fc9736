"""The kernel's log since a mark."""

from __future__ import annotations

import os


class KernelLog:
    """Reads /dev/kmsg. A mark is a file position, so nothing is lost or seen twice."""

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.mark()

    def mark(self) -> None:
        """Forget everything so far."""
        os.lseek(self._fd, 0, os.SEEK_END)
        self._lines: list[str] = []

    def lines(self) -> list[str]:
        """Messages since the mark."""
        while True:
            try:
                record = os.read(self._fd, 8192)
            except BlockingIOError:
                return list(self._lines)
            except BrokenPipeError:  # the ring overtook us; the next read goes on after the gap
                self._lines.append("(lab: kernel messages were lost)")
                continue
            text = record.decode(errors="replace").partition(";")[2]
            self._lines.append(text.partition("\n")[0])

    def close(self) -> None:
        os.close(self._fd)
