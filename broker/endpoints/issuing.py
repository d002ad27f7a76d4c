"""The steps from a read request to the claims of a token, shared by issuing and explaining."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from broker.client_auth import ClientAuthenticator, ProofVerifier
from broker.client_auth.basic import claimed_id
from broker.client_auth.workload import is_workloads
from broker.endpoints.decision import Gate, Judgement
from broker.endpoints.limits import Limits
from broker.endpoints.target import NO_SUCH_RESOURCE, Target, read_scopes, read_target
from broker.errors import (
    InvalidAuthorizationDetails,
    InvalidDpopProof,
    InvalidRequest,
    InvalidTarget,
    Reason,
    TokenRejected,
    UnauthorizedClient,
    UnsupportedGrantType,
)
from broker.grants import Grant
from broker.interfaces import AuditEntry, Registry
from broker.model import (
    AuthenticatedClient,
    BatchRequest,
    Client,
    Delegation,
    InputToken,
    OneTimeId,
    Party,
    PartyKind,
    ProvedKey,
    Relation,
    TargetRequest,
    TokenRequest,
    actors_of,
)
from broker.oauth import CLIENT_PARAMETERS, KNOWN_PARAMETERS
from broker.tokens.minter import Draft, Lifetime, Minter


class Proved(msgspec.Struct, frozen=True):
    """A request after its grant: what was proved, and what to spend for it."""

    grant: Grant
    client: Client
    delegation: Delegation
    credential_id: OneTimeId | None
    proof_id: OneTimeId | None

    @property
    def one_time_ids(self) -> tuple[OneTimeId, ...]:
        """All that is spent for the token: the client's own credential first, then its proof."""
        own = [one for one in (self.credential_id, self.proof_id) if one is not None]
        return (*own, *self.delegation.one_time_ids)


class Aimed(msgspec.Struct, frozen=True):
    """What was proved, aimed at the one target of a token: the resource, and the scopes asked for."""

    proved: Proved
    target: Target
    asked: tuple[str, ...] | None


class Drafted(msgspec.Struct, frozen=True):
    """What would be signed, for how long, and by which algorithm."""

    draft: Draft
    lifetime: Lifetime
    algorithm: str | None


@dataclass(frozen=True, slots=True)
class Issuing:
    """
    The order of things, which no grant can change: authenticate, prove, aim, decide, draft.

    Each step tells the audit entry what it found, so that a refusal is recorded with all that was
    known by then.
    """

    registry: Registry
    authenticator: ClientAuthenticator
    proofs: ProofVerifier
    grants: Mapping[str, Grant]
    gate: Gate
    minter: Minter
    default_resource: str | None
    limits: Limits

    def authenticate(
        self, request: TokenRequest, entry: AuditEntry, *, number: int = 1
    ) -> AuthenticatedClient:
        """
        The caller, by its credential or as the workload that the request's assertion speaks for.

        It is counted for so many requests. Raises as ``ClientAuthenticator`` does, and ``RateLimited`` when
        the client asks too often.
        """
        if is_workloads(request):
            authenticated = self.authenticator.authenticate_workload(request)
        else:
            authenticated = self.authenticator.authenticate(request.credential)
        entry.note(client_id=authenticated.client.client_id, auth_method=authenticated.method)
        entry.admitted = self.limits.admit(authenticated, number=number)
        return authenticated

    def prove(
        self, request: TokenRequest, authenticated: AuthenticatedClient, entry: AuditEntry
    ) -> Proved:
        """What the request proves; raises the grant's own refusal for a bad token."""
        grant = self._grant(request, authenticated.client)
        try:
            key = self._proved_key(request, authenticated.client)
            if key is not None:
                authenticated = replace(authenticated, key=key)
            delegation = grant.prove(request, authenticated)
        except TokenRejected as rejected:
            if rejected.known_as is not None:
                issuer, jti, expires_at, subject = rejected.known_as
                token = InputToken("subject", issuer, jti, expires_at)
                entry.note(inputs=(token,), subject=subject)
            raise grant.refusal(rejected.reason, detail=rejected.detail) from rejected
        if key is not None:
            delegation = replace(delegation, confirmation=key.thumbprint)
        if authenticated.workload is not None:
            delegation = _vouched(delegation, authenticated.workload)
        _note_delegation(entry, delegation)
        return Proved(
            grant,
            authenticated.client,
            delegation,
            credential_id=None if authenticated.is_by_assertion else authenticated.one_time_id,
            proof_id=None if key is None else key.one_time_id,
        )

    def aim(self, proved: Proved, request: TokenRequest, entry: AuditEntry) -> Aimed:
        """What the request asks for; raises ``InvalidTarget`` and ``InvalidScope`` for what is no target."""
        asked = read_scopes(request)
        delegation = proved.delegation
        target = read_target(
            request, delegation, registry=self.registry, default=self.default_resource
        )
        _check_not_returned(delegation, target)
        target = _within_tenant(delegation, target)
        entry.note(resource=target.resource.resource if target.refused is None else None)
        return Aimed(proved, target, asked)

    def _proved_key(self, request: TokenRequest, client: Client) -> ProvedKey | None:
        """
        The key that the token will be bound to: whoever proves one gets no bearer token (RFC 9449 5).

        Raises ``InvalidDpopProof``, also where the client is registered for bound tokens alone.
        """
        if request.proofs:
            return self.proofs.verify(request.proofs, request.proof_target)
        if client.is_bound:
            raise InvalidDpopProof(Reason.POP_REQUIRED)
        return None

    def _grant(self, request: TokenRequest, client: Client) -> Grant:
        grant = self.grants.get(request.grant_type)
        if grant is None:
            reason = Reason.GRANT_UNSUPPORTED if request.grant_type else Reason.PARAM_MISSING
            error = UnsupportedGrantType if request.grant_type else InvalidRequest
            raise error(reason, parameter="grant_type")
        if grant.grant_type not in client.grants:
            raise UnauthorizedClient(Reason.GRANT_NOT_ALLOWED)
        if "authorization_details" in request.present:
            raise InvalidAuthorizationDetails(Reason.RAR_INVALID, parameter="authorization_details")
        strange = request.present & _strange_to(grant.parameters)
        if strange:
            raise InvalidRequest(Reason.PARAM_NOT_ALLOWED, parameter=min(strange))
        return grant

    def judge(self, aimed: Aimed, entry: AuditEntry) -> Judgement:
        """What policy says; the refusal in it, if any, is the caller's to raise."""
        proved = aimed.proved
        judgement = self.gate.judge(
            proved.client, proved.delegation, target=aimed.target, asked=aimed.asked
        )
        decision = judgement.decision
        entry.note(
            policy_ids=decision.policy_ids,
            policy_digest=decision.policy_digest,
            scope_decisions=decision.scopes or None,
        )
        return judgement

    def draft(self, aimed: Aimed, judgement: Judgement, entry: AuditEntry) -> Drafted:
        """The claims to sign; raises the grant's own refusal when nothing is left of the lifetime."""
        decision, resource, proved = judgement.decision, aimed.target.resource, aimed.proved
        delegation = proved.delegation
        if decision.is_impersonation and not delegation.is_delegation_required:
            delegation = replace(delegation, actor=None)
        try:
            lifetime = self.minter.lifetime_for(
                delegation, resource, policy_limit=decision.max_lifetime
            )
        except TokenRejected as rejected:
            raise proved.grant.refusal(rejected.reason) from rejected
        draft = self.minter.draft(
            proved.client,
            delegation,
            resource=resource,
            scopes=decision.granted,
            lifetime=lifetime,
            receipt=entry.receipt,
        )
        entry.note(lifetime=lifetime.seconds, lifetime_limit=lifetime.limit)
        if delegation is not proved.delegation:
            actors = actors_of(delegation.act)
            entry.note(actors=actors, chain_depth=len(actors))
        return Drafted(draft, lifetime, resource.signing_algorithm)


@lru_cache(maxsize=16)
def _strange_to(parameters: frozenset[str]) -> frozenset[str]:
    """The parameters that a grant which takes these has no use for."""
    return KNOWN_PARAMETERS - CLIENT_PARAMETERS - parameters


def _vouched(delegation: Delegation, workload: InputToken) -> Delegation:
    """
    The delegation of a client that a workload's token spoke for, whatever the grant.

    Nothing outlives that token, nor counts when its issuer is switched off or withdrawn.
    """
    limits = [one for one in (delegation.not_after, workload.expires_at) if one is not None]
    return replace(
        delegation,
        not_after=min(limits),
        inputs=(*delegation.inputs, workload),
        heritage=delegation.heritage | {Party(PartyKind.ISSUER, workload.issuer)},
    )


def _check_not_returned(delegation: Delegation, target: Target) -> None:
    """
    An MCP server gets no new token for its own resource out of one addressed to it.

    It would be the received token again, passed on under another name. Who proves himself as an actor
    that the chain does not begin with asks for something else, a token that says so; then policy decides.
    """
    is_own = delegation.subject_audience == target.resource.resource
    is_new_actor = delegation.has_actor_token and delegation.actor is not None
    if is_own and delegation.relation is Relation.AUDIENCE and not is_new_actor:
        raise InvalidTarget(Reason.TARGET_REFUSED, parameter="resource")


def _within_tenant(delegation: Delegation, target: Target) -> Target:
    """A resource of a tenant does not exist for the subjects of another, or of none."""
    tenant = target.resource.tenant
    if tenant is None or tenant == delegation.subject.tenant:
        return target
    return Target(NO_SUCH_RESOURCE, Reason.TARGET_REFUSED)


def note_request(entry: AuditEntry, request: TokenRequest) -> None:
    """Record what was asked, before any of it is believed."""
    entry.note(
        grant_type=request.grant_type,
        unverified_client_id=claimed_id(request.credential),
        targets_asked=_targets(request),
        scopes_asked=request.scopes or (),
    )


def note_batch(entry: AuditEntry, batch: BatchRequest) -> None:
    """Record what was asked for together, before any of it is believed."""
    entry.note(
        grant_type=batch.common.grant_type,
        unverified_client_id=claimed_id(batch.common.credential),
        targets_asked=tuple(name for one in batch.targets for name in _targets(one)),
        group_size=len(batch.targets),
    )


def note_target(part: AuditEntry, request: TokenRequest) -> None:
    """Record what one of several tokens is for; a refusal keeps all that was asked for."""
    part.note(targets_asked=_targets(request))


def _targets(asked: TokenRequest | TargetRequest) -> tuple[str, ...]:
    return asked.resources + asked.audiences


def _note_delegation(entry: AuditEntry, delegation: Delegation) -> None:
    subject, actors = delegation.subject, actors_of(delegation.act)
    entry.note(
        actors=actors,
        chain_depth=len(actors),
        subject=subject.sub,
        subject_issuer=subject.issuer,
        subject_kind=subject.kind,
        tenant=subject.tenant,
        relation=delegation.relation._value_,
        mcp_client=delegation.qualified_mcp_client,
        mcp_server=delegation.mcp_server,
        foreign_actors_from=delegation.foreign_actors_from,
        inputs=delegation.inputs,
        confirmation=delegation.confirmation,
        authorization_server=None if delegation.id_jag is None else delegation.id_jag.server.issuer,
    )
