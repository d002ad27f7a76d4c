"""What of a token is proved: signature, issuer, times, audience, each by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich_click as click

from broker.cli.stop import Negative
from broker.config.files import UnusableFile, read_key_set
from broker.errors import TokenRejected
from broker.issuers import key_set
from broker.jws import UnverifiedToken
from broker.oauth import VERIFICATION_ALGORITHMS


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was looked at, how it came out, and what was found."""

    name: str
    is_passed: bool
    detail: str


def read_keys(path: Path) -> Any:
    """The key set in a file, or the end of the command."""
    try:
        return read_key_set(path)
    except UnusableFile as unusable:
        raise click.UsageError(f"--jwks: {path} {unusable}.") from None


def check_token(
    parts: UnverifiedToken, keys: Any, *, issuer: str | None, audience: str | None, now: int
) -> tuple[Check, ...]:
    """
    All checks, whether or not an earlier one failed; no clock leeway is given.

    ``issuer`` and ``audience`` are compared where they are given.
    """
    claims = parts.unverified_claims
    checks = [_check_signature(parts, keys), _check_times(claims, now)]
    if issuer is not None:
        found = claims.get("iss")
        checks.append(Check("issuer", found == issuer, str(found)))
    if audience is not None:
        listed = claims.get("aud")
        audiences = listed if isinstance(listed, list) else [listed]
        checks.append(Check("audience", audience in audiences, ", ".join(map(str, audiences))))
    return tuple(checks)


def _check_signature(parts: UnverifiedToken, keys: Any) -> Check:
    header = parts.header
    detail = f"{header.unverified_algorithm}, kid {header.unverified_kid}"
    if header.unverified_algorithm not in VERIFICATION_ALGORITHMS:
        return Check("signature", False, f"{detail}: the algorithm is not accepted")
    try:
        published = key_set.read_key_set(keys)
        key = published.find(header.unverified_kid, header.unverified_algorithm)
    except key_set.SourceRefused:
        raise Negative("What was read is not a key set.") from None
    except TokenRejected as rejected:
        return Check("signature", False, f"{detail}: {rejected.reason.sentence}")
    return Check("signature", key.verify(parts.signing_input, parts.signature), detail)


def _check_times(claims: Mapping[str, Any], now: int) -> Check:
    expires_at, not_before = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
    if expires_at is None or not_before is None:
        return Check("time", False, "exp or nbf is missing or not a number")
    if now >= expires_at:
        return Check("time", False, f"expired {now - expires_at:.0f} s ago")
    if now < not_before:
        return Check("time", False, f"valid in {not_before - now:.0f} s")
    return Check("time", True, f"{expires_at - now:.0f} s left")


def _seconds(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
