"""Redeeming: an identity assertion of another issuer becomes a delegation here (ID-JAG 4.4)."""

from collections.abc import Iterator, Mapping
from typing import Final

from broker.errors import InvalidTarget, Reason, TokenRejected
from broker.grants._chain import CallingActor, check_may_act, check_no_actors
from broker.grants._grant import GrantTools
from broker.grants._names import check_tenants, check_user, foreign_subject, tenant_of
from broker.grants._subject import id_of_caller
from broker.model import (
    Action,
    AuthenticatedClient,
    Delegation,
    InputToken,
    JsonObject,
    OneTimeId,
    Party,
    PartyKind,
    Relation,
    Subject,
    TrustedIssuer,
)
from broker.tokens.claims import read_optional_text, read_scope
from broker.tokens.resource_uri import normalise_resource
from broker.tokens.verifier import ID_JAG, VerifiedToken

ONE_TIME_KIND: Final = "id_jag"
_MOST_RESOURCES: Final = 16


def redeem(tools: GrantTools, assertion: str, *, authenticated: AuthenticatedClient) -> Delegation:
    """
    What the assertion proves for this client, and for how long and how often.

    Raises ``TokenRejected``. Whatever the assertion restricts in a way that is not understood here
    makes it unacceptable; nothing of the kind is passed over.
    """
    client = authenticated.client
    verified = tools.tokens.verify(
        assertion, ID_JAG, client=client, proved_key=authenticated.proved_key
    )
    trusted, claims = verified.trusted_issuer, verified.claims
    if trusted is None:
        raise TokenRejected(Reason.SELF_ISSUED_JAG)
    if verified.audience != tools.issuer:
        raise TokenRejected(Reason.AUD_MISMATCH)
    if verified.client_id != client.client_id or "client_id" not in claims:
        raise TokenRejected(Reason.CLIENT_MISMATCH)
    if "authorization_details" in claims:
        raise TokenRejected(Reason.RAR_INVALID)
    check_no_actors(verified.act)
    caller = CallingActor(tools.issuer, client, tools.max_actors)
    caller_id = id_of_caller(verified, client)
    check_may_act(caller, claims, issuer=verified.issuer, caller_id=caller_id)
    subject = _account(verified, trusted)
    given_to = Party(PartyKind.CLIENT, client.client_id)
    tools.tokens.standing.check_foreign(subject, verified.issued_at, others=frozenset({given_to}))
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


def _account(verified: VerifiedToken, trusted: TrustedIssuer) -> Subject:
    """
    The account of (issuer, tenant, sub) here (ID-JAG 6).

    A tenant is part of the name where the issuer has several, and where it has not, an assertion that
    speaks of one is not understood. Nor is one for a tenant of ours that is not the account's.
    """
    if "tenant" in verified.claims and not trusted.is_multi_tenant:
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED, "a tenant is not expected")
    if trusted.accounts is None:
        subject = foreign_subject(verified, trusted)
    else:
        subject = _listed(verified, trusted, trusted.accounts)
    if read_optional_text(verified.claims, "aud_tenant") not in (None, subject.tenant):
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED, "it is for another tenant of ours")
    return subject


def _listed(
    verified: VerifiedToken, trusted: TrustedIssuer, accounts: Mapping[str, Mapping[str, str]]
) -> Subject:
    """The account that the operator listed; whoever is not in the list is unknown."""
    tenant = tenant_of(verified, trusted)
    sub = accounts.get(tenant or "", {}).get(verified.sub)
    if sub is None:
        raise TokenRejected(Reason.SUBJECT_UNRESOLVED)
    check_user(sub)
    return Subject(sub, trusted.issuer, "user", tenant or trusted.tenant)


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
    leeway = int(tools.leeway.total_seconds())
    until, since = verified.expires_at + leeway, verified.issued_at - leeway
    yield OneTimeId(ONE_TIME_KIND, verified.issuer, verified.jti, until, since)
