"""Settings of the auditor's pages that are unsafe or impossible together."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from broker.config import files
from broker.config.findings import Finding, Scene
from broker.config.problems import Path
from broker.config.review_sections import ReviewOidcSection

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
_AT: Final[Path] = ("audit", "review")


def check_review(scene: Scene) -> Iterator[Finding]:
    """The pages have one origin, and a login lets in whom a rule names and nobody else."""
    review = scene.file.audit.review
    if review is None:
        return
    yield from _check_url(scene, review.url)
    if review.idle_timeout > review.session_lifetime:
        yield Finding((*_AT, "idle_timeout"), "is longer than session_lifetime")
    if review.oidc is not None:
        yield from _check_rules(review.oidc)
        yield from _check_provider(scene, review.oidc)


def _check_url(scene: Scene, url: str | None) -> Iterator[Finding]:
    if url is None:
        if scene.file.listen.admin.port == 0:
            yield Finding(_AT, "needs url where listen.admin has any free port", is_key=True)
        return
    told = urlsplit(url)
    if told.port == _DEFAULT_PORTS.get(told.scheme):
        yield Finding(
            (*_AT, "url"), f"browsers leave the port {told.port} out, so leave it out here as well"
        )
    if told.path not in ("", "/") or told.netloc.lower() != told.netloc:
        yield Finding(
            (*_AT, "url"), "must be a host in lower case, with a port if any, and no path"
        )


def _check_rules(oidc: ReviewOidcSection) -> Iterator[Finding]:
    if not oidc.subjects and oidc.claim is None:
        yield Finding((*_AT, "oidc"), "lets nobody in: name subjects, or a claim and its values")
    if oidc.claim is not None and not oidc.values:
        yield Finding((*_AT, "oidc", "claim"), "needs values")
    if oidc.values and oidc.claim is None:
        yield Finding((*_AT, "oidc", "values"), "has no effect without claim")


def _check_provider(scene: Scene, oidc: ReviewOidcSection) -> Iterator[Finding]:
    if "openid" not in oidc.scopes:
        yield Finding((*_AT, "oidc", "scopes"), "must contain openid")
    if oidc.issuer.startswith("http://") and not scene.file.issuer.startswith("http://"):
        yield Finding((*_AT, "oidc", "issuer"), "must be https where the broker's own issuer is")
    if oidc.client_secret_file is None:
        return
    path = (*_AT, "oidc", "client_secret_file")
    try:
        files.check_secret(scene.places.resolve(path, oidc.client_secret_file))
    except files.UnusableFile as unusable:
        yield Finding(path, str(unusable))
