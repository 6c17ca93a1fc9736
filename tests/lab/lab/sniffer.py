"""What goes over the wire: iSCSI logins are in the clear."""

from __future__ import annotations

import re
import socket
from types import TracebackType

ETH_P_ALL = 3
SO_RCVBUFFORCE = 33
BUFFER = 16 << 20
LARGEST = 65536
ETHERNET = 14
IPV6 = b"\x86\xdd"


def _segment(packet: bytes) -> bytes:
    """Addresses, ports, sequence number and payload: the same when TCP sends it once more."""
    if packet[12:14] == IPV6:
        ends, tcp = packet[ETHERNET + 8 : ETHERNET + 40], packet[ETHERNET + 40 :]
    else:
        header = (packet[ETHERNET] & 0xF) * 4
        ends, tcp = packet[ETHERNET + 12 : ETHERNET + 20], packet[ETHERNET + header :]
    return ends + tcp[:8] + tcp[(tcp[12] >> 4) * 4 :] if len(tcp) >= 20 else packet


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
        """First group (or whole) of each match, a packet at a time; what TCP repeats, once."""
        self._listen()
        once = {_segment(packet): packet for packet in self._heard}
        return [found for packet in once.values() for found in re.findall(pattern, packet)]

    def _listen(self) -> None:
        while self._socket.fileno() >= 0:
            try:
                packet, address = self._socket.recvfrom(LARGEST)
            except BlockingIOError:
                return
            if address[2] != socket.PACKET_OUTGOING:  # lo shows every packet twice
                self._heard.append(packet)
