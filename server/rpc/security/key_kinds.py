"""Which kind of public key a certificate has, and which clients can connect to a server with it.

Neither the standard library nor gRPC says so before a client's handshake fails.
"""

from collections.abc import Mapping

_RSA = "1.2.840.113549.1.1.1"
_EC = "1.2.840.10045.2.1"
# What gRPC's core, in C, takes from a server; and with it its Python, C++, Ruby and PHP clients.
_EVERY_CLIENT = frozenset({"RSA", "ECDSA with P-256", "ECDSA with P-384"})
# OpenSSL, Go and Java take these, too.
_SOME_CLIENTS = frozenset({"ECDSA with P-521", "Ed25519"})
EXPECTED = "expected RSA, or ECDSA with P-256 or P-384"
_KINDS: Mapping[str, str] = {
    _RSA: "RSA",
    "1.2.840.113549.1.1.10": "RSA-PSS",
    "1.2.840.10040.4.1": "DSA",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}
_CURVES: Mapping[str, str] = {
    "1.2.840.10045.3.1.7": "P-256",
    "1.3.132.0.34": "P-384",
    "1.3.132.0.35": "P-521",
    "1.3.132.0.10": "secp256k1",
    "1.3.132.0.33": "P-224",
    "1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1",
    "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1",
    "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
}
_OBJECT_ID, _VERSION = 0x06, 0xA0
# Of tbsCertificate before its key, without the version: serial number, signature, issuer, validity,
# subject (RFC 5280, section 4.1).
_FIELDS_BEFORE_KEY = 5


def kind(certificate: bytes) -> str:
    """The kind of the key in a certificate in DER. ValueError where it is not one."""
    try:
        fields = _children(_children(_children(certificate)[0][1])[0][1])
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        algorithm, *parameters = _children(_children(fields[_FIELDS_BEFORE_KEY][1])[0][1])
    except IndexError:
        raise ValueError("not a certificate") from None
    name = _object_id(algorithm[1])
    if name != _EC:
        return _KINDS.get(name, f"the algorithm {name}")
    if not parameters or parameters[0][0] != _OBJECT_ID:
        return "ECDSA with a curve of its own"
    curve = _object_id(parameters[0][1])
    return f"ECDSA with {_CURVES.get(curve, f'the curve {curve}')}"


def for_every_client(kind: str) -> bool:
    """Whether all of gRPC's clients can connect to a server with such a key."""
    return kind in _EVERY_CLIENT


def for_some_clients(kind: str) -> bool:
    """Whether OpenSSL serves such a key, and some clients take it."""
    return kind in _EVERY_CLIENT | _SOME_CLIENTS


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each value that `data` has. IndexError where it is cut off."""
    found = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(data[at : at + count])
            at += count
        if at + length > len(data):
            raise IndexError
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _object_id(content: bytes) -> str:
    numbers = [0]
    for byte in content:
        numbers[-1] = numbers[-1] << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(0)
    first, *rest = numbers[:-1]
    return ".".join(map(str, (min(first // 40, 2), first - 40 * min(first // 40, 2), *rest)))
