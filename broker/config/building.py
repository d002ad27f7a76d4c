"""From checked sections to the frozen settings."""

import math
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Final

from broker.config.building_audit import build_audit
from broker.config.building_state import build_state
from broker.config.check_clients import methods_of
from broker.config.check_keys import keep_published_of, outage_of, publish_ahead_of
from broker.config.declarations import (
    GRANTS,
    PURPOSES,
    AuthorizationServerEntry,
    ClientDocumentsSection,
    ClientEntry,
    IssuerEntry,
    ResourceEntry,
    ServerResourceEntry,
)
from broker.config.file import TlsSection
from broker.config.findings import Scene
from broker.config.key_sections import (
    AppRoleSection,
    KubernetesSection,
    TokenFileSection,
    VaultSection,
)
from broker.config.limit_sections import QuotaSection
from broker.config.places import delivered_policies
from broker.config.problems import Path
from broker.config.settings import (
    EphemeralSettings,
    FetchSettings,
    GrpcSettings,
    HttpSettings,
    KeySettings,
    KeyTimes,
    LimitSettings,
    ListenSettings,
    LogSettings,
    RecordSettings,
    Settings,
    TokenSettings,
    VaultAuthSettings,
    VaultSettings,
    WorkerSettings,
)
from broker.config.values import in_a_second
from broker.model import (
    Client,
    ClientDocumentTerms,
    KeySource,
    Quota,
    Resource,
    ResourceAuthorizationServer,
    Scope,
    SecretHash,
    SubjectForm,
    TlsFiles,
    TrustedIssuer,
    WorkloadRule,
)
from broker.tokens.resource_uri import normalise_resource
from broker.tokens.spiffe_id import is_trust_domain

_LEAST_BURST: Final = 10
_BURST_SECONDS: Final = 2


def build(scene: Scene) -> Settings:
    """The settings of a file in which the checks found nothing."""
    file = scene.file
    default = file.default_resource
    return Settings(
        source=scene.places.source.absolute(),
        issuer=file.issuer,
        listen=_listen(scene),
        http=_http(scene),
        grpc=_grpc(scene),
        workers=WorkerSettings(
            http=file.workers.http, grpc=file.workers.grpc, is_pinned=file.workers.pin == "auto"
        ),
        keys=_keys(scene),
        state=build_state(scene, _data(scene, ("state", "directory"), file.state.directory)),
        audit=build_audit(scene, _data(scene, ("audit", "directory"), file.audit.directory)),
        fetch=_fetch(scene),
        tokens=_tokens(scene),
        limits=LimitSettings(
            _quota(file.limits.per_client),
            _quota(file.limits.per_source),
        ),
        log=LogSettings(file.log.format, file.log.level),
        drain_delay=file.drain_delay,
        policies=_path(scene, ("policies",), file.policies) or delivered_policies(),
        default_resource=normalise_resource(default) if default is not None else None,
        clients=tuple(_client(scene, path, entry=entry) for path, entry in scene.clients),
        resources=tuple(_resource(entry) for _, entry in scene.resources),
        issuers=tuple(_issuer(scene, path, entry=entry) for path, entry in scene.issuers),
        authorization_servers=tuple(map(_server, file.authorization_servers)),
        disabled_subjects=frozenset(file.disabled_subjects),
        disabled_policies=frozenset(file.disabled_policies),
        client_documents=_client_documents(file.client_documents),
    )


def _listen(scene: Scene) -> ListenSettings:
    listen = scene.file.listen
    return ListenSettings(
        http=listen.http, grpc=listen.grpc, admin=listen.admin, streams=listen.streams
    )


def _path(scene: Scene, path: Path, value: str | None) -> FilePath | None:
    return scene.places.resolve(path, value) if value is not None else None


def _data(scene: Scene, path: Path, value: str | None) -> FilePath:
    # The setting's section gives the directory its name: keys, state, audit.
    return scene.places.under_data(path, value, data_dir=scene.file.data_dir, name=str(path[0]))


def _tls(scene: Scene, path: Path, tls: TlsSection | None) -> TlsFiles | None:
    if tls is None:
        return None
    return TlsFiles(
        cert_file=scene.places.resolve((*path, "cert_file"), tls.cert_file),
        key_file=scene.places.resolve((*path, "key_file"), tls.key_file),
        client_ca_file=_path(
            scene, (*path, "client_ca_file"), getattr(tls, "client_ca_file", None)
        ),
    )


def _http(scene: Scene) -> HttpSettings:
    http = scene.file.http
    return HttpSettings(
        tls=_tls(scene, ("http", "tls"), http.tls),
        is_behind_proxy=http.is_behind_proxy,
        trusted_proxies=tuple(http.trusted_proxies),
        caller_header=http.caller_header,
        max_body_bytes=http.max_body_bytes,
        threads=http.threads,
    )


def _grpc(scene: Scene) -> GrpcSettings:
    grpc = scene.file.grpc
    return GrpcSettings(
        tls=_tls(scene, ("grpc", "tls"), grpc.tls),
        max_message_bytes=grpc.max_message_bytes,
        max_concurrent=grpc.max_concurrent,
        threads=grpc.threads,
        has_reflection=grpc.reflection,
    )


def _fetch(scene: Scene) -> FetchSettings:
    fetch = scene.file.fetch
    return FetchSettings(
        ca_file=_path(scene, ("fetch", "ca_file"), fetch.ca_file),
        private_networks=tuple(fetch.private_networks),
        key_hosts={
            entry.issuer: frozenset(entry.key_hosts)
            for _, entry in scene.issuers
            if entry.key_hosts is not None
        },
    )


def _keys(scene: Scene) -> KeySettings:
    keys = scene.file.keys
    return KeySettings(
        store=keys.store,
        algorithm=keys.algorithm,
        also=tuple(name for name in keys.also if name != keys.algorithm),
        directory=_data(scene, ("keys", "dev", "directory"), keys.dev.directory),
        times=KeyTimes(
            publish_ahead=publish_ahead_of(scene.file),
            keep_published=keep_published_of(scene.file),
            rotate_every=keys.rotate_every,
            poll=keys.poll,
            clock_difference=keys.clock_difference,
            has_spare=keys.spare,
            outage=outage_of(scene.file),
        ),
        vault=_vault(scene, keys.vault),
    )


def _vault(scene: Scene, vault: VaultSection | None) -> VaultSettings | None:
    if vault is None:
        return None
    return VaultSettings(
        url=vault.url.rstrip("/"),
        mount=vault.mount,
        keys=vault.keys.model_dump(exclude_none=True),
        auth=_vault_auth(scene, ("keys", "vault", "auth"), auth=vault.auth),
        audit_key=vault.audit_key,
        record=_vault_record(vault),
        rotator=(
            _vault_auth(scene, ("keys", "vault", "rotator"), auth=vault.rotator)
            if vault.rotator is not None
            else None
        ),
        ephemeral=_ephemeral(vault),
        namespace=vault.namespace,
        ca_file=_path(scene, ("keys", "vault", "ca_file"), vault.ca_file),
    )


def _ephemeral(vault: VaultSection) -> EphemeralSettings | None:
    found = vault.ephemeral
    return EphemeralSettings(found.certifier, found.lifetime) if found is not None else None


def _vault_record(vault: VaultSection) -> RecordSettings | None:
    record = vault.record
    return RecordSettings(record.mount, record.path) if record is not None else None


def _vault_auth(
    scene: Scene, path: Path, *, auth: AppRoleSection | KubernetesSection | TokenFileSection
) -> VaultAuthSettings:
    names = ("role_id_file", "secret_id_file", "jwt_file", "token_file")
    return VaultAuthSettings(
        method=auth.method,
        mount=getattr(auth, "mount", ""),
        role=getattr(auth, "role", ""),
        **{name: _path(scene, (*path, name), getattr(auth, name, None)) for name in names},
    )


def _tokens(scene: Scene) -> TokenSettings:
    tokens = scene.file.tokens
    return TokenSettings(
        lifetime=tokens.lifetime,
        machine_lifetime=tokens.machine_lifetime,
        id_jag_lifetime=tokens.id_jag_lifetime,
        leeway=tokens.leeway,
        max_actors=tokens.max_actors,
        mcp_claim=tokens.mcp_claim or f"{scene.file.issuer}/claims/mcp",
        max_token_bytes=tokens.max_token_bytes,
        jwks_max_age=tokens.jwks_max_age,
        pairwise_key_file=_path(scene, ("tokens", "pairwise_key_file"), tokens.pairwise_key_file),
    )


def _client(scene: Scene, path: Path, *, entry: ClientEntry) -> Client:
    auth = entry.auth
    key_set = scene.key_sets.get((*path, "auth"))
    document = entry.id if auth.document else None
    keys = KeySource(jwks=key_set, jwks_uri=auth.jwks_uri, document=document)
    return Client(
        client_id=entry.id,
        auth_methods=methods_of(auth),
        grants=frozenset(GRANTS[name] for name in entry.grants),
        secrets=tuple(SecretHash(secret.hash, secret.expires_at) for secret in auth.secrets),
        keys=keys if keys != KeySource() else None,
        algorithms=frozenset(auth.algorithms),
        issuers=frozenset(entry.issuers) if entry.issuers is not None else None,
        issuer_client_ids=entry.issuer_client_ids,
        groups=frozenset(entry.groups),
        profile=entry.profile,
        tenant=entry.tenant,
        has_token_endpoint_audience=entry.accepts_token_endpoint_audience,
        max_assertion_lifetime=entry.max_assertion_lifetime,
        introspects=frozenset(normalise_resource(one) for one in entry.introspect),
        is_bound=entry.dpop_bound_access_tokens,
        is_explainer=entry.explain,
        is_administrator=entry.administer,
        is_auditor=entry.read_audit,
        is_disabled=entry.disabled,
        quota=_quota(entry.limit),
    )


def _quota(section: QuotaSection | None) -> Quota | None:
    if section is None:
        return None
    rate = in_a_second(section.rate)
    return Quota(rate, section.burst or max(_LEAST_BURST, math.ceil(rate * _BURST_SECONDS)))


def _resource(entry: ResourceEntry) -> Resource:
    scopes = {
        name: Scope(name, frozenset(scope.from_ or [name]), frozenset(scope.groups))
        for name, scope in entry.scopes.items()
    }
    return Resource(
        resource=normalise_resource(entry.resource),
        scopes=scopes,
        owner=entry.owner,
        audiences=frozenset(entry.audiences),
        signing_algorithm=entry.signing_algorithm,
        max_lifetime=entry.max_lifetime,
        tenant=entry.tenant,
        is_disabled=entry.disabled,
    )


def _issuer(scene: Scene, path: Path, *, entry: IssuerEntry) -> TrustedIssuer:
    given = KeySource(jwks=scene.key_sets.get(path), jwks_uri=entry.jwks_uri)
    keys = given if given != KeySource() else KeySource(discovery=entry.issuer)
    return TrustedIssuer(
        issuer=entry.issuer,
        purposes=frozenset(PURPOSES[name] for name in entry.purposes),
        algorithms=frozenset(entry.algorithms),
        keys=replace(keys, is_spiffe_bundle=is_trust_domain(entry.issuer)),
        subject_prefix=entry.subject_prefix,
        tenant=entry.tenant,
        foreign_actors=entry.foreign_actors,
        max_token_lifetime=entry.max_token_lifetime,
        is_multi_tenant=entry.multi_tenant,
        tenants=None if entry.tenants is None else frozenset(entry.tenants),
        accounts=_accounts(entry),
        is_single_use=entry.single_use,
        workloads=tuple(WorkloadRule(rule.client, rule.claims) for rule in entry.workloads),
        is_disabled=entry.disabled,
    )


def _accounts(entry: IssuerEntry) -> dict[str, dict[str, str]] | None:
    """The accounts by tenant and ``sub``; an issuer without tenants has one without a name."""
    if entry.accounts is None:
        return None
    found: dict[str, dict[str, str]] = {}
    for name, value in entry.accounts.items():
        if isinstance(value, str):
            found.setdefault("", {})[name] = value
        else:
            found[name] = value
    return found


def _server(entry: AuthorizationServerEntry) -> ResourceAuthorizationServer:
    return ResourceAuthorizationServer(
        issuer=entry.issuer,
        client_ids=entry.client_ids,
        resources=tuple(_server_resource(one, entry.issuer) for one in entry.resources),
        names=frozenset(entry.names),
        subject_form=SubjectForm(entry.subject),
        subjects=entry.subjects,
        has_email=entry.email,
        tenant=entry.tenant,
        is_disabled=entry.disabled,
    )


def _server_resource(entry: ServerResourceEntry, issuer: str) -> Resource:
    return Resource(
        resource=normalise_resource(entry.resource),
        scopes={name: Scope(name, frozenset({name})) for name in entry.scopes},
        authorization_server=issuer,
        is_disabled=entry.disabled,
    )


def _client_documents(section: ClientDocumentsSection | None) -> ClientDocumentTerms | None:
    if section is None:
        return None
    return ClientDocumentTerms(
        hosts=frozenset(section.hosts),
        grants=frozenset(GRANTS[name] for name in section.grants),
        groups=frozenset(section.groups),
        profile=section.profile,
    )
