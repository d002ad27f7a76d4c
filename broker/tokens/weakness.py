"""Public keys that parse well and protect nothing."""

import math
from typing import Final

_SMALL_PRIMES: Final = tuple(
    number for number in range(3, 168) if all(number % divisor for divisor in range(2, number))
)


def is_weak_rsa_modulus(modulus: int) -> bool:
    """Whether the modulus has a small factor, or the mark of the ROCA generator (CVE-2017-15361)."""
    if modulus % 2 == 0 or math.gcd(modulus, math.prod(_SMALL_PRIMES)) != 1:
        return True
    return all(pow(modulus, order, prime) == 1 for prime, order in _ROCA_ORDERS)


def _order_of_65537(prime: int) -> int:
    order, power = 1, 65537 % prime
    while power != 1:
        order, power = order + 1, power * 65537 % prime
    return order


# ROCA primes are powers of 65537 modulo every small prime, and so is their product. A number is in
# that subgroup exactly when its power of the subgroup's order is 1. A sound modulus passes for all
# of these primes about once in 2**27.
_ROCA_ORDERS: Final = tuple((prime, _order_of_65537(prime)) for prime in _SMALL_PRIMES)

_P25519: Final = 2**255 - 19
_D25519: Final = -121665 * pow(121666, -1, _P25519) % _P25519


def is_small_order_ed25519(encoded: bytes) -> bool:
    """
    Whether an encoded Ed25519 key is one of the eight points of small order, or not canonical.

    Under such a key one signature fits many messages (RFC 8032 5.1.3, RFC 8032 8.9).
    """
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    if y >= _P25519:
        return True
    # Order 1, 2 and 4 have y = 1, -1 and 0. Doubling a point of order 8 gives y = 0, which on this
    # curve means x**2 = -y**2, and so d y**4 + 2 y**2 = 1.
    return y in (0, 1, _P25519 - 1) or (_D25519 * y**4 + 2 * y**2 - 1) % _P25519 == 0
