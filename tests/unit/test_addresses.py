from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.fetch.addresses import is_allowed, networks

REFUSED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "",
    "localhost",
    "1.2.3",
    "0x7f000001",
    "2130706433",
]


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "52.216.1.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "2a00:1450::1"]
)
def test_a_public_address_is_allowed(address: str) -> None:
    assert is_allowed(address)


def test_a_configured_network_is_allowed_and_nothing_beside_it() -> None:
    allowed = networks(["127.0.0.0/8", "fd00::/8"])
    assert is_allowed("127.0.0.2", allowed)
    assert is_allowed("::ffff:127.0.0.2", allowed)
    assert is_allowed("fd12::1", allowed)
    assert not is_allowed("10.0.0.1", allowed)
    assert not is_allowed("::1", allowed)


def test_a_text_that_is_no_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="not appear"):
        networks(["127.0.0.1/99"])


@given(st.ip_addresses(v=4))
def test_wrapping_an_ipv4_address_changes_nothing(address: ipaddress.IPv4Address) -> None:
    assert is_allowed(f"::ffff:{address}") == is_allowed(str(address))


@given(st.ip_addresses())
def test_whatever_python_calls_special_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped
    if special and not mapped:
        assert not is_allowed(str(address))
