"""Which clients may read the audit record; each reading is on record itself."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from broker.endpoints.inquiry import Callers
from broker.endpoints.limits import Limits
from broker.endpoints.watching import StreamLimits, StreamPlaces, Watcher
from broker.errors import InvalidClient, Reason, UnauthorizedClient
from broker.interfaces import AuditEntry, AuditLog, Registry
from broker.model import AuthenticatedClient, Client, ClientCredential, RequestContext

Answer = TypeVar("Answer")

STREAM_LIMITS = StreamLimits(of_one=8, of_all=64)


@dataclass(frozen=True, slots=True)
class Question(Generic[Answer]):
    """
    What a caller wants to know.

    ``asked`` tells it in the record, without the ``people`` asked about. ``answer`` gives the answer and how
    many records are in it, or raises ``OAuthError``. ``values`` may be anybody's name until something is
    found by them: until then ``bare`` is what was asked.
    """

    credential: ClientCredential
    asked: str
    answer: Callable[[], tuple[Answer, int]] = field(repr=False)
    people: tuple[str, ...] = ()
    bare: str = ""
    values: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class RecordReadingEndpoint:
    """Lets those clients read the audit record that have the permission, and no others."""

    callers: Callers
    registry: Registry
    audit: AuditLog
    places: StreamPlaces = field(default_factory=lambda: StreamPlaces(STREAM_LIMITS))

    @property
    def limits(self) -> Limits:
        """Where whoever wants to read enters."""
        return self.callers.limits

    def answer(self, context: RequestContext, read: Callable[[], Question[Answer]]) -> Answer:
        """
        The answer to a question, once it is on record that it was asked, by whom, and how much was told.

        Raises ``OAuthError`` when the caller is not known, may not, or cannot be answered.
        """
        with self.audit.entry("audit.read", context) as entry:
            question = read()
            caller = self._caller(question, entry)
            answer, found = question.answer()
            entry.note(found=found)
            if found and question.values:
                entry.note(asked=question.asked, people_asked=question.people or None)
            self.callers.spend(caller)
        return answer

    def admit(
        self, context: RequestContext, read: Callable[[], Question[Answer]]
    ) -> tuple[Watcher, Answer]:
        """
        The client, with a place among the streams that is its own until ``dismiss``, and a first answer.

        Raises ``OAuthError`` as ``answer`` does, and when there is no place.
        """
        with ExitStack() as undo:
            with self.audit.entry("audit.read", context) as entry:
                question = read()
                caller = self._caller(question, entry)
                client_id = caller.client.client_id
                self.places.take(client_id)
                undo.callback(self.places.give_back, client_id)
                answer, _ = question.answer()
                self.callers.spend(caller)
            # Whoever is not on record has no place.
            undo.pop_all()
        return Watcher(caller.client), answer

    def dismiss(self, watcher: Watcher) -> None:
        """Give the place of a stream back that has ended; called once for each that was admitted."""
        self.places.give_back(watcher.client.client_id)

    def is_as_admitted(self, watcher: Watcher) -> bool:
        """
        Whether nothing has changed about the client; if something has, it must authenticate again.

        Raises ``OAuthError`` when it may read no more.
        """
        client = self.registry.client(watcher.client.client_id)
        if client is None or client.is_disabled:
            raise InvalidClient(Reason.CLIENT_DISABLED)
        _check_permission(client)
        return client == watcher.client

    def _caller(self, question: Question[Answer], entry: AuditEntry) -> AuthenticatedClient:
        unknown = (*question.people, *question.values)
        entry.note(asked=question.bare or question.asked, people_asked=unknown or None)
        caller = self.callers.authenticate(question.credential, entry)
        _check_permission(caller.client)
        return caller


def _check_permission(client: Client) -> None:
    if not client.is_auditor:
        raise UnauthorizedClient(Reason.PERMISSION_MISSING)
