"""Which addresses belong to the public internet."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST = ipaddress.ip_network("2000::/3")  # the only part of IPv6 that hosts of the internet have addresses in
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_HOSTS = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocols of the IETF
            "192.88.99.0/24",  # relays of 6to4
            "2001::/23",  # protocols of the IETF, Teredo among them
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """Whether an address may be that of a host on the public internet.

    Not public are loopback, private, link-local, shared, reserved and multicast addresses, and IPv6 addresses that carry such
    an IPv4 address: IPv4-mapped and -compatible ones, those of NAT64 (64:ff9b::/96), 6to4 (2002::/16) and ISATAP.

    Args:
        address: an IPv4 or IPv6 address, without a zone.

    Example:
        >>> [is_public(address) for address in ("8.8.8.8", "10.0.0.1", "64:ff9b::a00:1", "2002:7f00:1::")]
        [True, False, False, False]
    """
    parsed = ipaddress.ip_address(address)
    return _is_host(parsed) and all(map(_is_host, _embedded(parsed)))


def _is_host(address: Address) -> bool:
    if any(address in network for network in _NOT_HOSTS if network.version == address.version):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped or address in _NAT64:  # as public as the IPv4 address in it, which `is_public` checks
            return True
        if address not in _UNICAST:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _embedded(address: Address) -> Iterator[ipaddress.IPv4Address]:
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    if address.ipv4_mapped or address in _NAT64 or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if address.sixtofour:
        yield address.sixtofour
