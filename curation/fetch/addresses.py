"""Which addresses may be connected to: the public internet, and what the recipe allows besides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def embedded(address: Address) -> Address:
    """The IPv4 address inside a mapped, 6to4, Teredo or NAT64 IPv6 address; otherwise `address` itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else address


class AddressPolicy:
    """`allows(address)` for global unicast addresses and the networks in `allowed` (CIDR)."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]

    def allows(self, text: str) -> bool:
        """Whether a connection to the address `text` may be made; False for what is no address."""
        try:
            address = embedded(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return False
        if any(address.version == network.version and address in network for network in self._allowed):
            return True
        # is_global knows the registries of special-purpose addresses (RFC 6890): private, loopback, link-local, …
        return address.is_global and not address.is_multicast
