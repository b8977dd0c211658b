import pytest

from tfrecords_tools.collect.addresses import is_public

PUBLIC = "8.8.8.8 1.1.1.1 2606:4700::1111 64:ff9b::808:808 ::ffff:8.8.8.8 2002:808:808::1"
NOT_PUBLIC = {
    "private, loopback, link-local, shared": "10.0.0.1 127.0.0.1 169.254.169.254 0.0.0.0 100.64.0.1 ::1 :: fe80::1 fc00::1",
    "site-local": "fec0::1",
    "multicast and reserved": "224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 ff02::1 ff0e::1 4000::1 100::1",
    "protocols, relays, measurements, examples": "192.0.0.8 192.0.0.9 192.88.99.1 198.18.0.1 192.0.2.1 2001:db8::1 3fff::1",
    "IPv4-mapped and -compatible": "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:224.0.0.1 ::127.0.0.1 ::8.8.8.8",
    "NAT64": "64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::e000:1 64:ff9b:1::808:808",
    "6to4, Teredo, ISATAP": "2002:7f00:1:: 2002:a00:1::1 2002:c000:1::1 2001:0:a00:1::1 2606:4700::5efe:a00:1",
}


@pytest.mark.parametrize("address", PUBLIC.split())
def test_hosts_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("kind", NOT_PUBLIC)
def test_others_are_not(kind):
    assert [address for address in NOT_PUBLIC[kind].split() if is_public(address)] == []
