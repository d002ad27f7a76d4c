"""Who may look at the auditor's pages, put together from the settings."""

from broker.config import Settings
from broker.config.settings import ReviewOidcSettings, ReviewSettings
from broker.foundation import now, open_fetcher
from broker.interfaces import AuditLog
from broker.issuers import IssuerKeyRing
from broker.web.review.links import FOLDER, Links
from broker.web.review.login import ReviewAccess
from broker.web.review.openid import AuditorRules, OpenIdProvider, OpenIdTerms
from broker.web.review.place import Place
from broker.web.review.readings import Readings
from broker.web.review.sessions import Sessions, SessionTerms


class Reviewing:
    """
    The door to the auditor's pages: make it in the process that serves them.

    ``access`` lets auditors in, ``readings`` records what they look at. ``audit`` is the chain of the
    process. Raises ``LinksRefused`` or ``OSError`` when the directory of the links cannot be used.
    """

    def __init__(self, settings: Settings, review: ReviewSettings, audit: AuditLog) -> None:
        place = Place(review.url)
        links = Links(settings.state.directory / FOLDER)
        links.prepare()
        self._key_ring: IssuerKeyRing | None = None
        provider = None if review.oidc is None else self._provider(settings, place, review.oidc)
        terms = SessionTerms(
            longest=review.session_lifetime.total_seconds(),
            idle=review.idle_timeout.total_seconds(),
        )
        self.access = ReviewAccess(place, links, audit, sessions=Sessions(terms), provider=provider)
        self.readings = Readings(audit)

    def _provider(
        self, settings: Settings, place: Place, oidc: ReviewOidcSettings
    ) -> OpenIdProvider:
        fetcher = open_fetcher(settings)
        self._key_ring = IssuerKeyRing(fetcher, key_hosts={oidc.issuer: oidc.hosts}, refreshers=1)
        terms = OpenIdTerms(
            issuer=oidc.issuer,
            client_id=oidc.client_id,
            rules=AuditorRules(oidc.subjects, oidc.claim or "", oidc.values),
            secret_file=oidc.client_secret_file,
            algorithms=frozenset(oidc.algorithms),
            scopes=oidc.scopes,
            hosts=oidc.hosts,
            name_claim=oidc.name_claim,
        )
        return OpenIdProvider(
            terms,
            redirect_uri=place.url("/login/return"),
            sender=fetcher,
            key_ring=self._key_ring,
            now=now,
        )

    def close(self) -> None:
        """Stop what runs in the background."""
        self.access.close()
        self.readings.close()
        if self._key_ring is not None:
            self._key_ring.close()
