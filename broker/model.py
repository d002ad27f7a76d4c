"""The nouns of the broker, frozen: what is registered, what is asked, what is proved, what is issued."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final

from msgspec import Struct
from msgspec.structs import replace

from broker.unshown import Unshown

JsonObject = Mapping[str, Any]


# ---- what an operator registers


class Purpose(StrEnum):
    """What a trusted issuer's tokens may be used for here."""

    USER = "user"
    WORKLOAD = "workload"
    ACCESS_TOKEN = "access_token"
    ID_JAG = "id_jag"


@dataclass(frozen=True, slots=True)
class KeySource:
    """
    Where somebody else's public keys come from: exactly one of the four is set.

    ``jwks`` is a JWK set (RFC 7517 5) given in the configuration or read from a file at load.
    ``discovery`` is an issuer whose metadata document names its ``jwks_uri``. ``document`` is a client
    ID metadata document, which holds keys or names where they are.

    ``is_spiffe_bundle`` says that a set is a trust domain's, in which keys have uses of their own.
    """

    jwks: JsonObject | None = None
    jwks_uri: str | None = None
    discovery: str | None = None
    document: str | None = None
    is_spiffe_bundle: bool = False


@dataclass(frozen=True, slots=True)
class WorkloadRule:
    """
    Which workload is which client: a token in which all of ``claims`` are exactly so speaks for it.

    A name that begins with ``/`` is a JSON pointer (RFC 6901) into the claims; any other is the name of
    a claim. A claim that is a list satisfies the rule when it holds the value.
    """

    client_id: str
    claims: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """
    Somebody else's issuer whose tokens are accepted, for the stated purposes only.

    ``issuer`` compares byte for byte with the ``iss`` claim. ``algorithms`` is the pin: nothing
    else is accepted, whatever its keys could do. ``subject_prefix`` keeps equal ``sub`` values of
    two issuers apart. ``max_token_lifetime`` bounds ``exp - iat`` of what it signs.

    ``is_multi_tenant`` demands a ``tenant`` in each, which is part of who the subject is; ``tenants``
    are the only ones that it may name, where they are listed. For identity
    assertions ``accounts`` gives, by tenant (empty where there is none) and ``sub``, the subject here,
    and whoever it does not name is unknown; without it every subject has an account, named by prefix,
    tenant and ``sub``.
    ``is_single_use`` is unset where the kind of token decides: assertions are spent, workloads'
    tokens are not. ``workloads`` are the rules for its workloads' tokens.
    """

    issuer: str
    purposes: frozenset[Purpose]
    algorithms: frozenset[str]
    keys: KeySource
    subject_prefix: str = ""
    tenant: str | None = None
    foreign_actors: str = "keep"
    max_token_lifetime: timedelta = timedelta(hours=24)
    is_multi_tenant: bool = False
    tenants: frozenset[str] | None = None
    accounts: Mapping[str, Mapping[str, str]] | None = None
    is_single_use: bool | None = None
    workloads: tuple[WorkloadRule, ...] = ()
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class SecretHash:
    """
    A stored client secret: ``sha256:<hex>`` for a generated one, an argon2id string for a chosen one.

    ``not_after`` is the unix second after which it no longer authenticates.
    """

    encoded: str = field(repr=False)
    not_after: int | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """How much somebody may have: ``rate`` in a second in the long run, and ``burst`` at once."""

    rate: float
    burst: int


@dataclass(frozen=True, slots=True)
class Portion:
    """What was given out of a quota; when that is nothing, ``wait`` is how many seconds it takes."""

    number: int
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Client:
    """
    An OAuth client that authenticates here: an agent, an MCP server, an operator's tool.

    ``auth_methods`` are the registered method names it may use. ``grants`` are grant type URIs.
    ``issuers``, when not ``None``, limits whose subject tokens it may present. ``issuer_client_ids``
    gives its id at other issuers where that differs. ``profile`` is its ``sub_profile`` in ``act``.
    ``introspects`` are resources whose tokens it may ask about, besides those that it owns.
    ``is_bound`` says that it gets tokens bound to a key of its own, or none (RFC 9449 5.2). ``quota`` is
    its own where it differs from that of all clients. ``is_auditor`` says that it may read the audit record.
    """

    client_id: str
    auth_methods: frozenset[str]
    grants: frozenset[str]
    secrets: tuple[SecretHash, ...] = field(default=(), repr=False)
    keys: KeySource | None = None
    algorithms: frozenset[str] = frozenset({"ES256", "RS256"})
    issuers: frozenset[str] | None = None
    issuer_client_ids: Mapping[str, str] = field(default_factory=dict)
    groups: frozenset[str] = frozenset()
    profile: str = "service"
    tenant: str | None = None
    has_token_endpoint_audience: bool = False
    max_assertion_lifetime: timedelta = timedelta(minutes=5)
    introspects: frozenset[str] = frozenset()
    is_bound: bool = False
    is_explainer: bool = False
    is_administrator: bool = False
    is_auditor: bool = False
    is_disabled: bool = False
    quota: Quota | None = None


@dataclass(frozen=True, slots=True)
class ClientDocumentTerms:
    """
    What clients are registered with that are known by a metadata document at their id, an https URL.

    ``hosts`` are the only ones whose documents count, with the port where the URL has one.
    """

    hosts: frozenset[str]
    grants: frozenset[str]
    groups: frozenset[str] = frozenset()
    profile: str = "ai_agent"


@dataclass(frozen=True, slots=True)
class ClientDocument:
    """
    What a client says of itself in its metadata document (RFC 7591 2), as far as it matters here.

    Nothing in it gives a right; all of it can take one away. ``auth_method`` is ``private_key_jwt`` or
    ``none``. ``grants`` and ``algorithm`` are ``None`` where it does not restrict itself.
    """

    auth_method: str
    grants: frozenset[str] | None = None
    algorithm: str | None = None
    is_bound: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope of a resource, and the inbound scopes that it may be derived from."""

    name: str
    derives_from: frozenset[str]
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Resource:
    """
    Something a token can be for (RFC 8707): a downstream API, or an MCP server towards its agents.

    ``owner`` is the client id of the MCP server that receives tokens addressed to it.
    ``audiences`` are logical names that resolve to it. ``authorization_server`` is set where another
    one than this broker issues the tokens for it.
    """

    resource: str
    scopes: Mapping[str, Scope]
    owner: str | None = None
    audiences: frozenset[str] = frozenset()
    signing_algorithm: str | None = None
    max_lifetime: timedelta | None = None
    tenant: str | None = None
    authorization_server: str | None = None
    is_disabled: bool = False


class SubjectForm(StrEnum):
    """How a user's subject is told to another authorization server."""

    SAME = "same"
    """As it is minted here."""
    PAIRWISE = "pairwise"
    """A pseudonym that this server alone sees (OpenID Connect Core 8.1)."""
    MAPPED = "mapped"
    """By a table; whoever is not in it has no account there."""


@dataclass(frozen=True, slots=True)
class ResourceAuthorizationServer:
    """
    Somebody else's authorization server that redeems our identity assertions (ID-JAG 4.3).

    ``issuer`` is what the assertion is addressed to; ``names`` are logical names for it.
    ``client_ids`` gives, by client id here, the client's id there; who has none gets no assertion.
    ``resources`` are what it protects. ``subjects`` is the table of ``SubjectForm.MAPPED``, by subject
    as minted here. ``tenant`` is our users' tenant there (``aud_tenant``).
    """

    issuer: str
    client_ids: Mapping[str, str]
    resources: tuple[Resource, ...]
    names: frozenset[str] = frozenset()
    subject_form: SubjectForm = SubjectForm.SAME
    subjects: Mapping[str, str] = field(default_factory=dict)
    has_email: bool = False
    tenant: str | None = None
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    A face's certificate chain and its key, in PEM files.

    With ``client_ca_file``, only clients with a certificate of that authority get a connection.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files there are."""
        own = (self.cert_file, self.key_file)
        return own if self.client_ca_file is None else (*own, self.client_ca_file)


# ---- what is asked


@dataclass(frozen=True, slots=True)
class KeyChange:
    """
    A signing key of ours that comes from one state into another at a moment, in unix seconds.

    ``from_state`` is ``None`` for a key that there was not before, and the same as ``to_state`` where
    another change, which was announced earlier, is not to come. ``replica`` names the process in whose
    memory the key is, for one that others do not have.
    """

    kid: str
    algorithm: str
    from_state: str | None
    to_state: str
    at: int
    replica: str = ""


@dataclass(frozen=True, slots=True)
class KeyExposure:
    """
    What the revocation of a key cannot undo; every moment is in unix seconds.

    Every replica has stopped by ``stopped_at``. Verifiers that keep the key set may accept the key until
    ``accepted_until``, whoever signs with it. Tokens signed before are dead by ``expired_at`` at the
    latest. A verifier that kept the key set knows the key that signs instead from ``known_from`` on;
    before, it has to fetch the set for a key that it does not know. A replica that cannot read the record
    goes on publishing the key, so that whoever asks it may accept the key until ``cut_off_until``.
    """

    stopped_at: int
    accepted_until: int
    expired_at: int
    known_from: int
    cut_off_until: int


class RequestContext(Struct, frozen=True):
    """
    The circumstances of a request that are not part of what it asks.

    ``request_id`` is made by the face, unique, and is the id of the audit record: the decision id
    that a refused caller is told. ``face`` is ``http`` or ``grpc``, or ``service`` or ``command`` for
    what the broker or an operator does by itself. ``deadline`` is a moment of the
    monotonic clock in seconds, after which nobody waits for the answer any more. ``source``
    is whom the request is held against while it is not known whose it is; nobody when it is empty.
    """

    face: str
    request_id: str
    peer: str = ""
    deadline: float | None = None
    source: str = ""


def new_request_id() -> str:
    """A fresh id; those of later milliseconds sort after it (UUID version 7, RFC 9562 5.7)."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    drawn = os.urandom(10).hex()
    variant = _VARIANTS[drawn[3]]
    return f"{stamp[:8]}-{stamp[8:]}-7{drawn[:3]}-{variant}{drawn[4:7]}-{drawn[7:19]}"


# The upper two of the four bits tell the variant (RFC 9562 4.1), the lower two stay as they were drawn.
_VARIANTS: Final = {f"{digit:x}": f"{8 | digit & 3:x}" for digit in range(16)}


class ClientCredential(Unshown, frozen=True):
    """
    What a caller sent to authenticate itself, as sent and unproved.

    ``unverified_authorization`` is the ``Authorization`` header or metadata value; it appears more
    than once when the caller sent it so. The rest are the request parameters of the same name.
    """

    unshown: ClassVar = frozenset({"unverified_authorization", "client_secret", "client_assertion"})

    unverified_authorization: tuple[str, ...] = ()
    client_id: str | None = None
    client_secret: str | None = None
    client_assertion: str | None = None
    client_assertion_type: str | None = None


class TokenRequest(Unshown, frozen=True):
    """
    A token request as read from the wire: parameters by their registered names, nothing verified.

    ``present`` holds the names of all parameters that arrived with a value, so that a grant can
    refuse the ones it has no use for. ``proofs`` are the DPoP proofs that came along (RFC 9449 4.1),
    and ``proof_target`` is the address that they must be for; a port of ``*`` stands for any.
    """

    unshown: ClassVar = frozenset({"subject_token", "actor_token", "assertion", "proofs"})

    grant_type: str
    credential: ClientCredential
    subject_token: str | None = None
    subject_token_type: str | None = None
    actor_token: str | None = None
    actor_token_type: str | None = None
    assertion: str | None = None
    resources: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None
    requested_token_type: str | None = None
    proofs: tuple[str, ...] = ()
    proof_target: str = ""
    present: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TargetRequest:
    """What one of several tokens is asked for: the names of its resource, and the scopes, as sent."""

    resources: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A request for several tokens made of one, as read: what all have in common, and the targets."""

    common: TokenRequest
    targets: tuple[TargetRequest, ...]

    def requests(self) -> Iterator[TokenRequest]:
        """For each target the request that would ask for it alone."""
        for one in self.targets:
            yield replace(
                self.common, resources=one.resources, audiences=one.audiences, scopes=one.scopes
            )


@dataclass(frozen=True, slots=True)
class TokenInquiry:
    """
    A token that is presented to be told about (RFC 7662 2.1) or withdrawn (RFC 7009 2.1), as sent.

    What the caller takes it for is not kept, since nothing relies on it.
    """

    credential: ClientCredential
    token: str | None = field(default=None, repr=False)


class PartyKind(StrEnum):
    """The sorts of party whose tokens can be withdrawn together."""

    SUBJECT = "subject"
    """Whom a token is about, as its ``sub`` has it."""
    CLIENT = "client"
    """A client that a token was issued to, that acts in it, or that is its MCP client."""
    MCP_SERVER = "mcp_server"
    """A resource that a token is for, or that it came through."""
    ISSUER = "issuer"
    """Who vouched for the subject."""


class Party(Struct, frozen=True, cache_hash=True):
    """Somebody whose name is in tokens, by the name that is there."""

    kind: PartyKind
    name: str


@dataclass(frozen=True, slots=True)
class WithdrawalRequest:
    """
    An operator's order to withdraw everything that was issued for a party, as read and unproved.

    ``kind`` is ``None`` when none was stated, ``issued_since`` is in unix seconds.
    """

    credential: ClientCredential
    kind: PartyKind | None
    name: str
    issued_since: int = 0


# ---- what is proved


class OneTimeId(Struct, frozen=True):
    """
    An id that may be spent once: ``kind`` is the sort of token, so that ids never meet across sorts.

    ``until`` is the unix second after which the token could not be accepted anyway, and before ``since``
    nobody can have spent it, by clocks that differ by the leeway at most; 0 says that this is not known.
    """

    kind: str
    issuer: str
    jti: str
    until: int
    since: int = 0


class ProvedKey(Struct, frozen=True):
    """A key that the caller proved to hold: its thumbprint (RFC 7638), and the proof's id to spend."""

    thumbprint: str
    one_time_id: OneTimeId


class AuthenticatedClient(Struct, frozen=True):
    """
    A client that proved who it is, the method it used, and the one-time id to spend, if any.

    ``workload`` is the verified token of the workload that spoke for it, where that is how it did;
    ``is_by_assertion`` says that this token was the assertion of the grant, which is spent with it.
    ``key`` is set when it has proved besides that it holds a key, to which its token will be bound.
    """

    client: Client
    method: str
    one_time_id: OneTimeId | None = None
    workload: "InputToken | None" = None
    key: ProvedKey | None = None
    is_by_assertion: bool = False

    @property
    def proved_key(self) -> str | None:
        """The thumbprint of the key that it proved to hold."""
        return None if self.key is None else self.key.thumbprint


class Admission(Struct, frozen=True):
    """
    What a proved client was counted for: so many requests of its quota.

    ``one_time_id`` is what its proof is spent by, where there is such an id.
    """

    client_id: str
    number: int = 1
    one_time_id: OneTimeId | None = None


class Relation(StrEnum):
    """Why the authenticated client is entitled to present a subject token."""

    AUDIENCE = "audience"
    """It owns the resource that the token is addressed to: it is that MCP server."""
    ISSUED_TO = "issued_to"
    """The token was issued to it."""
    IDENTITY = "identity"
    """It is the audience of an ID token."""
    SELF = "self"
    """There is no subject token: the client acts for itself."""
    ASSERTED = "asserted"
    """An identity assertion names it as the client."""


class Subject(Struct, frozen=True):
    """
    Who a token is about. ``sub`` is the value that will be minted; ``issuer`` vouched for it.

    ``kind`` is ``user`` or ``client``.
    """

    sub: str
    issuer: str
    kind: str = "user"
    tenant: str | None = None


class Authentication(Struct, frozen=True):
    """How and when the user logged in at first; never refreshed by an exchange (RFC 9068 2.2.1)."""

    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()


class InputToken(Struct, frozen=True):
    """A verified token that a grant was given, as the audit record names it."""

    slot: str
    issuer: str
    jti: str | None
    expires_at: int


class Action(StrEnum):
    """What policy is asked to permit."""

    EXCHANGE = "exchange"
    """An access token for the subject of another token."""
    IMPERSONATE = "impersonate"
    """The same without naming who acts."""
    ISSUE = "issue"
    """An access token for a client itself."""
    ISSUE_ID_JAG = "issue_id_jag"
    """An identity assertion for another authorization server."""
    REDEEM = "redeem"
    """An access token for the subject of an identity assertion."""


@dataclass(frozen=True, slots=True)
class IdJag:
    """
    The identity assertion to issue: for whom it is, and what client and user are called there.

    ``email`` is set where that server is told it.
    """

    server: ResourceAuthorizationServer
    client_id: str
    sub: str
    email: str | None = None


class Delegation(Struct, frozen=True):
    """
    What a grant proves: who, through whom, how far at most, and until when.

    ``scopes`` are those the subject token carries, or ``None`` where it has no scopes of its own
    and policy alone bounds (an ID token). ``not_after`` is the earliest true expiry of all inputs,
    in unix seconds, or ``None`` where there is none. ``inherited_act`` is the subject token's own
    ``act``, unchanged; ``actor`` is the new outermost actor, or ``None`` where the chain stays as it
    is. ``mcp_client`` and ``mcp_server`` are what the minted token will name besides the resource;
    ``mcp_client_issuer`` is set where the client's name is another issuer's and not one of ours.

    ``resources`` are the only ones a token may be for, where an assertion names them. ``id_jag`` is set
    when an identity assertion is to be issued, not an access token. ``confirmation`` is the thumbprint of
    the key that the token will be bound to (RFC 9449 6.1). ``lineage`` are the ids of the tokens of
    ours that this one derives from, the first of them first, and ``heritage`` is everybody whose
    withdrawal ends what it derives from.
    """

    subject: Subject
    relation: Relation
    scopes: frozenset[str] | None
    not_after: int | None
    actor: JsonObject | None = None
    inherited_act: JsonObject | None = None
    subject_audience: str | None = None
    mcp_client: str | None = None
    mcp_client_issuer: str | None = None
    mcp_server: str | None = None
    foreign_actors_from: str | None = None
    authentication: Authentication = Authentication()
    inputs: tuple[InputToken, ...] = ()
    one_time_ids: tuple[OneTimeId, ...] = ()
    has_actor_token: bool = False
    is_delegation_required: bool = False
    action: Action = Action.EXCHANGE
    resources: tuple[str, ...] | None = None
    id_jag: IdJag | None = None
    confirmation: str | None = None
    lineage: tuple[str, ...] = ()
    heritage: frozenset[Party] = frozenset()

    @property
    def is_bound(self) -> bool:
        """Whether the token will be bound to a key."""
        return self.confirmation is not None

    @property
    def qualified_mcp_client(self) -> str | None:
        """The MCP client so that no two can be confused: ``<issuer>#<name>`` for another's name."""
        if self.mcp_client is None or self.mcp_client_issuer is None:
            return self.mcp_client
        return f"{self.mcp_client_issuer}#{self.mcp_client}"

    @property
    def act(self) -> JsonObject | None:
        """The chain to mint: the new actor around the inherited chain (RFC 8693 4.1)."""
        if self.actor is None:
            return self.inherited_act
        if self.inherited_act is None:
            return self.actor
        return {**self.actor, "act": self.inherited_act}

    @property
    def chain_depth(self) -> int:
        """How many actors the minted chain has."""
        depth, inner = int(self.actor is not None), self.inherited_act
        while inner is not None:
            depth, inner = depth + 1, inner.get("act")
        return depth


def actors_of(act: JsonObject | None) -> tuple[JsonObject, ...]:
    """The actors of a chain, newest first, each without the ones inside it."""
    actors = []
    while act is not None:
        actors.append({name: value for name, value in act.items() if name != "act"})
        act = act.get("act")
    return tuple(actors)


# ---- what policy says


class PolicyQuery(Struct, frozen=True):
    """
    One question to policy: may this client, on this delegation, have these scopes of this resource?

    ``scopes`` are candidates that the registry and the subject token already allow, so policy can
    only take away. Nothing in it is unverified. ``now`` is in unix seconds.
    """

    client: Client
    delegation: Delegation
    resource: Resource
    scopes: tuple[Scope, ...]
    now: int


class Verdict(StrEnum):
    """What policy says to one scope."""

    PERMIT = "permit"
    NO_PERMIT = "no_permit"
    """No permit matched: the default."""
    FORBIDDEN = "forbidden"
    """A guardrail said no."""
    ERROR = "error"
    """Evaluation failed, which denies."""


@dataclass(frozen=True, slots=True)
class ScopeDecision:
    """Policy's answer for one scope, and the ``@id`` of each policy that decided it."""

    scope: str
    verdict: Verdict
    policy_ids: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepUp:
    """A login that policy would accept instead (RFC 9470): context classes, greatest age in seconds."""

    acr_values: str = ""
    max_age: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """
    Policy's answer to a query.

    ``max_lifetime`` is the least ``@max_ttl`` of the permits that decided. ``is_impersonation`` says
    that policy permits a token without ``act``. ``step_up`` is set when nothing was permitted and a
    stronger login would change that. ``policy_digest`` is the SHA-256 of the policy set, in hex.
    """

    scopes: tuple[ScopeDecision, ...]
    policy_digest: str
    max_lifetime: timedelta | None = None
    is_impersonation: bool = False
    step_up: StepUp | None = None
    granted: tuple[str, ...] = field(init=False, compare=False)
    """The scopes permitted, in the order they were asked."""
    policy_ids: tuple[str, ...] = field(init=False, compare=False)
    """The deciding policies of all scopes, each once, sorted."""

    def __post_init__(self) -> None:
        # A decision is made once and remembered, and both are asked for with every request.
        granted = tuple(one.scope for one in self.scopes if one.verdict is Verdict.PERMIT)
        policy_ids = sorted({policy_id for one in self.scopes for policy_id in one.policy_ids})
        object.__setattr__(self, "granted", granted)
        object.__setattr__(self, "policy_ids", tuple(policy_ids))


@dataclass(frozen=True, slots=True)
class PolicyReference:
    """Where a policy stands: its ``@id``, its file relative to the policy folder, its first line."""

    policy_id: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class NearestMiss:
    """A permit that did not match: its failing conditions in Cedar, and the least change as a sentence."""

    policy: PolicyReference
    failed_conditions: tuple[str, ...]
    change: str


@dataclass(frozen=True, slots=True)
class ScopeExplanation:
    """Policy's answer for one scope with its grounds; the nearest miss comes first."""

    scope: str
    verdict: Verdict
    policies: tuple[PolicyReference, ...] = ()
    nearest_misses: tuple[NearestMiss, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """A token exchange to explain, and the client whose request it would be; ``None`` is the caller."""

    exchange: TokenRequest
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """
    What would happen to a request, and why.

    ``error`` and ``reason`` are empty when a token would be issued; then ``claims`` is what it would
    say, ``expires_in`` how many seconds it would live, and ``lifetime_limit`` what limits that.
    """

    is_permitted: bool
    policy_digest: str
    scopes: tuple[ScopeExplanation, ...] = ()
    error: str = ""
    reason: str = ""
    claims: JsonObject | None = None
    expires_in: int = 0
    lifetime_limit: str = ""


# ---- what is issued, and withdrawn


class Pedigree(Struct, frozen=True):
    """
    Everything whose withdrawal ends a token.

    ``jti`` is its own id, ``None`` for a token of another issuer, and ``ancestors`` are the ids of the
    tokens that it derives from. The tokens of its ``parties`` may have been withdrawn by the moment
    that it was issued at, in unix seconds.
    """

    jti: str | None
    issued_at: int
    parties: frozenset[Party]
    ancestors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """
    Everything issued for ``party`` from one second through another does not count any more.

    ``kept_until`` is the second after which none of it could be accepted anyway.
    """

    party: Party
    issued_since: int
    issued_until: int
    kept_until: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """
    One token or one party withdrawn, as the state remembers it.

    ``key`` is a digest, from which nobody can tell the name. What was issued from one second through
    another does not count, and after ``kept_until`` nobody has to know any more. Whatever is withdrawn,
    or withdrawn for more, gets the next ``number``.
    """

    number: int
    key: bytes
    issued_since: int
    issued_until: int
    kept_until: int


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """
    A token that is about to leave.

    ``expires_in`` is in seconds. ``claims`` is what was signed, for the audit record and explain.
    """

    token: str = field(repr=False)
    issued_token_type: str
    token_type: str
    expires_in: int
    scopes: tuple[str, ...]
    resource: str
    claims: JsonObject = field(repr=False)
    kid: str = ""
