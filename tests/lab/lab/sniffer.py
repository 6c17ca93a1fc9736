"""What goes over the wire: iSCSI logins are in the clear."""

from __future__ import annotations

import re
import socket
from types import TracebackType

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
BUFFER = 16 << 20
LARGEST = 65536


class Sniffer:
    """Hears everything on lo, where all of the lab's traffic goes, while the context lasts."""

    def __enter__(self) -> Sniffer:
        self._heard: list[bytes] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self._socket.bind(("lo", 0))
        self._socket.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listen()
        self._socket.close()

    def find(self, pattern: bytes) -> list[bytes]:
        """First group (or whole) of each match, a packet at a time; outgoing packets once."""
        self._listen()
        return [found for packet in self._heard for found in re.findall(pattern, packet)]

    def _listen(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                packet, address = self._socket.recvfrom(LARGEST)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:  # lo shows every packet twice
                self._heard.append(packet)
