"""Portal addresses on a dummy interface, and cutting them off."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal

from lab.tools import run

INTERFACE = "lab0"
PORT = 3260
MAX_PORTALS = 64

How = Literal["reject", "drop"]


@dataclass(frozen=True)
class Portal:
    """One address a target can listen on."""

    address: str
    port: int = PORT

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.address).version

    @property
    def bracketed(self) -> str:
        return f"[{self.address}]" if self.family == 6 else self.address

    def __str__(self) -> str:
        """As Cinder and iscsiadm write it: ``address:port``, IPv6 in brackets."""
        return f"{self.bracketed}:{self.port}"


class Network:
    """Owns the dummy interface and the nftables table ``inet lab``."""

    def __init__(self) -> None:
        self._present: set[str] = set()
        self._cuts: dict[Portal, How] = {}

    def portal(self, index: int, family: Literal[4, 6] = 4, port: int = PORT) -> Portal:
        """Portal number ``index`` (1..64); its address is added on first use."""
        if not 1 <= index <= MAX_PORTALS:
            raise ValueError(f"portal index {index} is not in 1..{MAX_PORTALS}")
        address = f"10.99.{index}.1" if family == 4 else f"fd00:99:{index:x}::1"
        return self.portal_at(address, port)

    def portal_at(self, address: str, port: int = PORT) -> Portal:
        """A portal at an address of the caller's choice, which is added on first use."""
        if address not in self._present:
            if not self._present:
                # "replace"-like: a second pytest in the same boot finds the interface there.
                run("ip", "link", "add", INTERFACE, "type", "dummy", check=False)
                run("ip", "link", "set", INTERFACE, "up")
            family6 = Portal(address).family == 6
            length = 128 if family6 else 32
            options = ["nodad"] if family6 else []
            run("ip", "address", "replace", f"{address}/{length}", "dev", INTERFACE, *options)
            self._present.add(address)
        return Portal(address, port)

    def cut(self, portal: Portal, how: How = "reject") -> None:
        """Cut a portal off, new and established connections alike, in both directions.

        ``reject`` answers every packet with a TCP reset, ``drop`` swallows it. An idle connection
        notices a reject only with its next packet (iscsid's NOP-Out, or I/O).
        """
        self._cuts[portal] = how
        self._apply()

    def heal(self, portal: Portal | None = None) -> None:
        """Undo ``cut`` for one portal, or for all."""
        if portal is None:
            if not self._cuts:
                return
            self._cuts.clear()
        else:
            self._cuts.pop(portal, None)
        self._apply()

    def _apply(self) -> None:
        # All of it is local traffic: each packet passes the input hook once, over lo. The table is
        # replaced in one transaction, so other cuts never flicker.
        rules = []
        for portal, how in self._cuts.items():
            family = "ip" if portal.family == 4 else "ip6"
            # The resets that a reject makes come through this hook too and must pass.
            verdict = "tcp flags & rst == 0 reject with tcp reset" if how == "reject" else "drop"
            for side, port in (("daddr", "dport"), ("saddr", "sport")):
                rules.append(f"{family} {side} {portal.address} tcp {port} {portal.port} {verdict}")
        hook = "type filter hook input priority 0; policy accept;"
        table = "table inet lab\ndelete table inet lab\n"
        if rules:
            body = "\n".join(rules)
            table += f"table inet lab {{\nchain input {{\n{hook}\n{body}\n}}\n}}\n"
        run("nft", "-f", "-", stdin=table)
