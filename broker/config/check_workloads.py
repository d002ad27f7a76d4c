"""Issuers of workloads, and rules about them, that are unsafe or could never fit."""

from collections.abc import Iterator

from broker.config.declarations import ClientEntry, IssuerEntry, WorkloadEntry
from broker.config.findings import Finding, Scene
from broker.config.problems import Path, nearest
from broker.tokens.json_pointer import is_pointer
from broker.tokens.spiffe_id import is_trust_domain, trust_domain_of


def check_workloads(scene: Scene) -> Iterator[Finding]:
    """Everything that is wrong about who vouches for workloads, and which client each of them is."""
    clients = {client.id: client for _, client in scene.clients}
    for path, issuer in scene.issuers:
        if is_trust_domain(issuer.issuer):
            yield from _check_trust_domain(issuer, path)
        yield from _check_purpose(issuer, path)
        for at, rule in enumerate(issuer.workloads):
            place: Path = (*path, "workloads", at)
            yield from _check_claims(rule, place, issuer=issuer)
            if rule.client not in scene.names.clients:
                hint = nearest(rule.client, scene.names.clients)
                yield Finding((*place, "client"), "is not registered in clients", hint)
            elif rule.client in clients:
                yield from _check_client(clients[rule.client], (*place, "client"), issuer=issuer)


def _check_trust_domain(issuer: IssuerEntry, path: Path) -> Iterator[Finding]:
    """Its name is no address, so nothing can be found by it, and it names no users."""
    if set(issuer.purposes) != {"workload"}:
        sentence = "must be workload alone: a SPIFFE trust domain vouches for nobody else"
        yield Finding((*path, "purposes"), sentence)
    if issuer.jwks is None and issuer.jwks_file is None and issuer.jwks_uri is None:
        sentence = "needs the bundle of this trust domain: jwks_file, or jwks_uri of its endpoint"
        yield Finding((*path, "issuer"), sentence)


def _check_purpose(issuer: IssuerEntry, path: Path) -> Iterator[Finding]:
    purposes = set(issuer.purposes)
    if issuer.workloads and "workload" not in purposes:
        sentence = "has no effect: 'workload' is not among its purposes"
        yield Finding((*path, "workloads"), sentence, is_key=True)
    if issuer.single_use is not None and not purposes & {"workload", "id_jag"}:
        sentence = "has no effect: 'workload' or 'id_jag' is not among its purposes"
        yield Finding((*path, "single_use"), sentence, is_key=True)


def _check_claims(rule: WorkloadEntry, path: Path, *, issuer: IssuerEntry) -> Iterator[Finding]:
    for name in rule.claims:
        if not name or (name.startswith("/") and not is_pointer(name)):
            sentence = "is no JSON pointer: within a name '~' is written ~0, and '/' ~1 (RFC 6901)"
            yield Finding((*path, "claims", name), sentence, is_key=True)
    subject = rule.claims.get("sub")
    is_foreign = subject is not None and trust_domain_of(subject) != issuer.issuer
    if is_trust_domain(issuer.issuer) and is_foreign:
        sentence = "is no SPIFFE ID of this trust domain, so it would never fit"
        yield Finding((*path, "claims", "sub"), sentence)


def _check_client(client: ClientEntry, path: Path, *, issuer: IssuerEntry) -> Iterator[Finding]:
    """A JWT-SVID authenticates at every grant; any other workload's token is a grant, jwt_bearer."""
    if not is_trust_domain(issuer.issuer) and "jwt_bearer" not in client.grants:
        sentence = "has not the grant jwt_bearer, which is how a workload presents its token"
        yield Finding(path, sentence)
    if client.auth.document:
        sentence = "is known by its metadata document, which no workload can stand in for"
        yield Finding(path, sentence)
    if issuer.tenant is not None and client.tenant != issuer.tenant:
        yield Finding(path, "belongs to another tenant than this issuer")
