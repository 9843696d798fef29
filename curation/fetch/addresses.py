"""Which addresses may be connected to: the public internet, and what the recipe allows besides.

The networks that Python's `is_global` knows differ between its releases, so the networks that are not public are listed
here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
NAT64 = ipaddress.ip_network("64:ff9b::/96")
NOT_PUBLIC_V4 = [
    # IANA IPv4 Special-Purpose Address Registry, with the networks in it that are reachable: they serve no pictures.
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",  # Oracle Cloud's metadata among them
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's metadata and host agent, in a network that is public otherwise
    )
]
UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
"""All that IANA allocates as global unicast (RFC 4291 2.4); no other address is public."""
NOT_PUBLIC_V6 = [
    # IANA IPv6 Special-Purpose Address Registry, inside 2000::/3; for 2002::/16 and Teredo see `unwrap_address`.
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")
]


def unwrap_address(address: Address) -> Address:
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


def is_public(address: Address) -> bool:
    """Whether `address` is public by IANA's registries."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_V4)
    return address in UNICAST_V6 and not any(address in network for network in NOT_PUBLIC_V6)


class AddressPolicy:
    """`allows(address)` for public addresses and the networks in `allowed` (CIDR)."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = [ipaddress.ip_network(network) for network in allowed]

    def allows(self, text: str) -> bool:
        """Whether a connection to the address `text` is allowed; False for a text that is no address."""
        try:
            given = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        inner = unwrap_address(given)
        if any(a.version == network.version and a in network for network in self._allowed for a in (given, inner)):
            return True
        return is_public(inner)
