"""Who is who here: the names of other issuers' users, which never meet each other or our clients."""

from broker.errors import Reason, TokenRejected
from broker.model import Client, Subject, TrustedIssuer
from broker.oauth import CLIENT_SUBJECT_PREFIX
from broker.tokens.claims import LONGEST_TEXT, read_text
from broker.tokens.verifier import VerifiedToken


def check_tenants(subject: Subject, client: Client) -> None:
    """A client of one tenant never acts for a subject of another, or of none."""
    if client.tenant is not None and subject.tenant != client.tenant:
        raise TokenRejected(Reason.TENANT_MISMATCH)


def foreign_subject(verified: VerifiedToken, trusted: TrustedIssuer) -> Subject:
    """
    The subject here of another issuer's token; raises ``TokenRejected`` if there can be none.

    A tenant is part of the name where the issuer has several (ID-JAG 6), whatever kind of token it is.
    """
    tenant = tenant_of(verified, trusted)
    name = verified.sub if tenant is None else f"{tenant}/{verified.sub}"
    minted = trusted.subject_prefix + name
    check_user(minted)
    if len(minted) > LONGEST_TEXT:
        # It could be issued, but neither exchanged again nor named in the configuration.
        raise TokenRejected(Reason.CLAIM_MALFORMED, "sub with its prefix is too long")
    return Subject(minted, trusted.issuer, "user", tenant or trusted.tenant)


def tenant_of(verified: VerifiedToken, trusted: TrustedIssuer) -> str | None:
    """The tenant that the token names, where its issuer has several; it must name one then."""
    if not trusted.is_multi_tenant:
        return None
    if "tenant" not in verified.claims:
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED, "the tenant is missing")
    tenant = read_text(verified.claims, "tenant")
    if "/" in tenant:
        # It would be told no more from what follows it.
        raise TokenRejected(Reason.CLAIM_MALFORMED, "tenant")
    if trusted.tenants is not None and tenant not in trusted.tenants:
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED, "the tenant is not one of this issuer's")
    return tenant


def check_user(sub: str) -> None:
    """No user's subject may lie in the namespace of clients (RFC 9700 4.15)."""
    if sub.startswith(CLIENT_SUBJECT_PREFIX):
        raise TokenRejected(Reason.SUBJECT_RESERVED)
