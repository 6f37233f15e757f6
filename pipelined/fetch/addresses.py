"""Which addresses may be connected to: public ones, and networks the configuration names."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable

__all__ = ["Network", "is_allowed", "networks"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The IPv6 addresses that are handed out for the internet at large; whatever lies outside is special.
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")

#: Refused although ``is_global`` says yes, or said so in some version of Python.
_REFUSED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "100.64.0.0/10",  # carrier-grade NAT; clouds put their metadata service there too
        "168.63.129.16/32",  # Azure's platform address, reachable from every virtual machine
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments, Teredo (2001::/32) among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: carries an IPv4 address that nobody has judged
        "3fff::/20",  # documentation
    )
)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks from their CIDR texts; raises ValueError for what is not one."""
    return tuple(ipaddress.ip_network(text) for text in texts)


@functools.lru_cache(maxsize=4096)
def is_allowed(address: str, allowed: tuple[Network, ...] = ()) -> bool:
    """Whether a numeric address may be connected to: it is public, or within one of ``allowed``.

    An IPv4 address mapped into IPv6 is judged as what it is; other wrappings (NAT64, 6to4, Teredo) are
    refused, and so is what is not an address.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if any(ip in network for network in allowed):
        return True
    if isinstance(ip, ipaddress.IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False  # NAT64, unique local, link-local, site-local, multicast, unassigned
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED)
