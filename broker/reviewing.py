"""The auditor's pages and who may look at them, put together from the settings."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from starlette.routing import BaseRoute

from broker.audit.query import AuditReader
from broker.audit.seal.integrity import Proofs
from broker.audit.telling.handover import Handover
from broker.audit.telling.why import Present
from broker.config import Settings
from broker.config.settings import ReviewOidcSettings, ReviewSettings
from broker.foundation import now, open_fetcher
from broker.in_force import Configuration
from broker.interfaces import AuditLog
from broker.issuers import IssuerKeyRing
from broker.lifeline import Lifeline
from broker.policy.problems import PolicyLoadError
from broker.web.peers import Peers
from broker.web.review.desk import Desk
from broker.web.review.guard import session_of
from broker.web.review.links import FOLDER, Links, opening
from broker.web.review.login import ReviewAccess
from broker.web.review.openid import AuditorRules, OpenIdProvider, OpenIdTerms
from broker.web.review.place import Place
from broker.web.review.readings import Readings
from broker.web.review.routes import review_routes
from broker.web.review.sessions import Sessions, SessionTerms


class Evidence(Proofs, Handover, Protocol):
    """Proves what is in the record, and signs for what is taken away."""


class InForceNow:
    """What is in force in the broker, for what pages say of why; any thread may ask."""

    def __init__(self, configuration: Configuration, lifeline: Lifeline) -> None:
        self._configuration = configuration
        self._lifeline = lifeline
        self._generation = lifeline.generation
        self._lock = threading.Lock()

    def __call__(self) -> Present:
        with self._lock:
            self._follow()
            return Present(self._configuration.policy, self._configuration.registry)

    def _follow(self) -> None:
        """Take what was ordered last; the pages go on with what they know where that cannot be loaded."""
        order = self._lifeline.order if self._lifeline.generation != self._generation else None
        if order is None:
            return
        try:
            self._configuration = self._configuration.changed_to(order.in_force)
        except PolicyLoadError:
            return
        self._generation = order.generation


class Reviewing:
    """
    The door to the auditor's pages: make it in the process that serves them.

    ``access`` lets auditors in, ``readings`` records what they look at. ``audit`` is the chain of the
    process. Raises ``LinksRefused`` or ``OSError`` when the directory of the links cannot be used.
    """

    def __init__(self, settings: Settings, review: ReviewSettings, audit: AuditLog) -> None:
        place = Place(review.url)
        links = Links(settings.state.directory / FOLDER, command=opening(settings.source))
        links.prepare()
        self._key_ring: IssuerKeyRing | None = None
        provider = None if review.oidc is None else self._provider(settings, place, review.oidc)
        terms = SessionTerms(
            longest=review.session_lifetime.total_seconds(),
            idle=review.idle_timeout.total_seconds(),
        )
        self.access = ReviewAccess(
            place,
            links,
            audit,
            sessions=Sessions(terms),
            provider=provider,
        )
        self._peers = Peers(settings.http.trusted_proxies, header=settings.http.caller_header)
        self.readings = Readings(audit)

    def routes(
        self, reader: AuditReader, evidence: Evidence, present: Callable[[], Present]
    ) -> list[BaseRoute]:
        """The pages, behind their door."""
        desk = Desk(
            reader=reader,
            proofs=evidence,
            handover=evidence,
            clock=time.time,
            present=present,
            witness=self.readings.reading,
            may_still_look=lambda request: self.access.sessions.is_live(session_of(request)),
        )
        return [self.access.guarded(review_routes(desk), peers=self._peers)]

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
