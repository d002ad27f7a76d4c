"""Redeeming: an identity assertion of another issuer becomes a delegation here (ID-JAG 4.4)."""

from collections.abc import Iterator
from typing import Final

from broker.errors import InvalidTarget, Reason, TokenRejected
from broker.grants._grant import GrantTools
from broker.grants._subject import check_tenants, foreign_sub
from broker.model import (
    Action,
    Client,
    Delegation,
    InputToken,
    JsonObject,
    OneTimeId,
    Relation,
    Subject,
    TrustedIssuer,
)
from broker.tokens.claims import read_optional_text, read_scope
from broker.tokens.resource_uri import normalise_resource
from broker.tokens.verifier import ID_JAG, VerifiedToken

ONE_TIME_KIND: Final = "id_jag"
_MOST_RESOURCES: Final = 16


def redeem(tools: GrantTools, assertion: str, *, client: Client) -> Delegation:
    """
    What the assertion proves for this client, and for how long and how often.

    Raises ``TokenRejected``. Whatever the assertion restricts in a way that is not understood here
    makes it unacceptable; nothing of the kind is passed over.
    """
    verified = tools.tokens.verify(assertion, ID_JAG, client=client)
    trusted, claims = verified.trusted_issuer, verified.claims
    if trusted is None:
        raise TokenRejected(Reason.SELF_ISSUED_JAG)
    if verified.audience != tools.issuer:
        raise TokenRejected(Reason.AUD_MISMATCH)
    if verified.client_id != client.client_id or "client_id" not in claims:
        raise TokenRejected(Reason.CLIENT_MISMATCH)
    if "authorization_details" in claims:
        raise TokenRejected(Reason.RAR_INVALID)
    if verified.act is not None:
        raise TokenRejected(Reason.CHAIN_MALFORMED, "an assertion may not assert actors")
    subject = _account(tools, verified, trusted)
    check_tenants(subject, client)
    return Delegation(
        subject=subject,
        relation=Relation.ASSERTED,
        scopes=read_scope(claims) if "scope" in claims else None,
        not_after=verified.expires_at,
        mcp_client=client.client_id,
        authentication=verified.authentication,
        inputs=(InputToken("assertion", verified.issuer, verified.jti, verified.expires_at),),
        one_time_ids=tuple(_one_time_ids(tools, verified, trusted)),
        action=Action.REDEEM,
        resources=_resources(tools, claims),
    )


def _account(tools: GrantTools, verified: VerifiedToken, trusted: TrustedIssuer) -> Subject:
    """
    The account of (issuer, tenant, sub) here (ID-JAG 6).

    A tenant is part of the name where the issuer has several, and where it has not, an assertion that
    speaks of one is not understood.
    """
    tenant = read_optional_text(verified.claims, "tenant")
    if (tenant is not None) is not trusted.is_multi_tenant:
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED, "the tenant is missing, or not expected")
    if tenant is not None and "/" in tenant:
        raise TokenRejected(Reason.CLAIM_MALFORMED, "tenant")
    if trusted.accounts is None:
        local = verified.sub if tenant is None else f"{tenant}/{verified.sub}"
        sub = foreign_sub(local, trusted)
    else:
        known = trusted.accounts.get(tenant or "", {}).get(verified.sub)
        if known is None:
            raise TokenRejected(Reason.SUBJECT_UNRESOLVED)
        sub = known
    if tools.registry.is_subject_disabled(sub):
        raise TokenRejected(Reason.PRINCIPAL_DISABLED, "the subject")
    return Subject(sub, trusted.issuer, "user", trusted.tenant if tenant is None else tenant)


def _resources(tools: GrantTools, claims: JsonObject) -> tuple[str, ...] | None:
    """
    The registered resources that the assertion is for, or ``None`` where it names none.

    One that names only resources that are not ours is for somebody else.
    """
    if "resource" not in claims:
        return None
    value = claims["resource"]
    named = value if isinstance(value, list) else [value]
    if not 0 < len(named) <= _MOST_RESOURCES or not all(isinstance(one, str) for one in named):
        raise TokenRejected(Reason.CLAIM_MALFORMED, "resource")
    known = tuple(dict.fromkeys(_known(tools, named)))
    if not known:
        raise TokenRejected(Reason.TARGET_UNKNOWN, "none of its resources is registered")
    return known


def _known(tools: GrantTools, named: list[str]) -> Iterator[str]:
    for name in named:
        try:
            resource = normalise_resource(name)
        except InvalidTarget:
            raise TokenRejected(Reason.CLAIM_MALFORMED, "resource") from None
        found = tools.registry.resource(resource)
        if found is not None and found.resource == resource and not found.is_disabled:
            yield resource


def _one_time_ids(
    tools: GrantTools, verified: VerifiedToken, trusted: TrustedIssuer
) -> Iterator[OneTimeId]:
    """An assertion is spent unless its issuer's registration lets it be used again."""
    if trusted.is_single_use is False or verified.jti is None:
        return
    until = verified.expires_at + int(tools.leeway.total_seconds())
    yield OneTimeId(ONE_TIME_KIND, verified.issuer, verified.jti, until)
