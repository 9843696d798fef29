"""Addresses against a list of the special-purpose networks that owes nothing to Python's own."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.fetch.addresses import AddressPolicy, unwrap_address

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "168.63.129.17", "192.0.1.1", "2606:4700::1111", "2a00:1450::1"]
NOT_PUBLIC = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "192.0.0.1", "192.88.99.1"),
    *("192.0.0.192", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"),  # metadata of clouds
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "100::1", "4000::1"),
    *("2001:db8::1", "2001:2::1", "2001:10::1", "3fff::1", "5f00::1", "2620:4f:8000::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:7f00:1", "::127.0.0.1", "64:ff9b::7f00:1"),
    *("64:ff9b:1::7f00:1", "64:ff9b:1:7f00:0:100::", "2002:7f00:1::", "2002:a00:1::1"),
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo of 127.0.0.1
    *("no address", ""),
]
V4 = [
    *((0, 8), (10 << 24, 8), (100 << 24 | 64 << 16, 10), (127 << 24, 8), (169 << 24 | 254 << 16, 16)),
    *((172 << 24 | 16 << 16, 12), (192 << 24, 24), (192 << 24 | 2 << 8, 24), (192 << 24 | 31 << 16 | 196 << 8, 24)),
    *((192 << 24 | 52 << 16 | 193 << 8, 24), (192 << 24 | 88 << 16 | 99 << 8, 24), (192 << 24 | 168 << 16, 16)),
    *((192 << 24 | 175 << 16 | 48 << 8, 24), (198 << 24 | 18 << 16, 15), (198 << 24 | 51 << 16 | 100 << 8, 24)),
    *((203 << 24 | 113 << 8, 24), (224 << 24, 4), (240 << 24, 4), (168 << 24 | 63 << 16 | 129 << 8 | 16, 32)),
]
"""First address and length of what is not public."""
EDGES = [at % (1 << 32) for first, size in V4 for at in (first - 1, first, first + (1 << 32 - size) - 1)]


def special(number: int) -> bool:
    return any(first >> (32 - size) == number >> (32 - size) for first, size in V4)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert AddressPolicy().allows(address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_others_are_not(address: str) -> None:
    assert not AddressPolicy().allows(address)


def test_a_recipe_may_allow_a_network_and_no_more() -> None:
    policy = AddressPolicy(["127.0.0.0/8", "fd00::/8", "64:ff9b:1::/96"])
    assert policy.allows("127.0.0.1") and policy.allows("::ffff:127.0.0.1") and policy.allows("fd00::1")
    assert policy.allows("64:ff9b:1::808:808")
    assert not policy.allows("10.0.0.1") and not policy.allows("::1") and not policy.allows("::127.0.0.1")


@given(st.integers(0, 2**32 - 1) | st.sampled_from(EDGES))
def test_ipv4_is_judged_by_the_registry_in_whatever_it_hides(number: int) -> None:
    inner = ipaddress.IPv4Address(number)
    policy = AddressPolicy()
    assert policy.allows(str(inner)) is not special(number)
    hidden = [0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1]
    hidden.append(0x20010000 << 96 | number ^ 0xFFFFFFFF)
    for outer in map(ipaddress.IPv6Address, hidden):
        assert unwrap_address(outer) == inner
        assert policy.allows(str(outer)) is not special(number)
    for lost in (number, 0xFFFF0000 << 32 | number, 0x64FF9B0001 << 80 | number):
        assert not policy.allows(str(ipaddress.IPv6Address(lost))), "in networks where nothing public is"


@given(st.integers(0, 2**128 - 1), st.sampled_from([0x2001, 0x2620, 0x3FFF, 0x2606, 0x2A00, 0x5F00, 0xFEC0]))
def test_ipv6_is_public_inside_2000_3_only(number: int, first: int) -> None:
    for address in (number, number % (1 << 112) | first << 112):
        outer = ipaddress.IPv6Address(address)
        allowed = AddressPolicy().allows(str(outer))
        if unwrap_address(outer) != outer:
            continue
        assert not allowed or address >> 125 == 1
        inside = [(0x2001 << 112, 23), (0x20010DB8 << 96, 32), (0x2620004F8000 << 80, 48), (0x3FFF << 112, 20)]
        in_block = any(block >> (128 - size) == address >> (128 - size) for block, size in inside)
        assert allowed is (address >> 125 == 1 and not in_block)
