"""The broker's session with Vault: one token, renewed in time and replaced when it is refused."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from broker.errors import TemporarilyUnavailable
from broker.keys.unavailable import signer_unavailable
from broker.keys.vault_auth import Lease, VaultAuth, granted_lease
from broker.keys.vault_http import Fault, VaultFault, VaultHttp, VaultServer

_RENEW_AFTER: Final = 2 / 3
"""The part of a lease after which it is renewed."""

_AWAY: Final = frozenset({Fault.UNREACHABLE, Fault.TIMED_OUT, Fault.SEALED})
_KNOCK_AGAIN_SECONDS: Final = 0.25
"""A login that found nobody there was none. Whoever waited for it meanwhile need not try as well."""

Call = Callable[[str], Mapping[str, Any]]
"""A call to Vault that still lacks its token."""


@dataclass(frozen=True, slots=True)
class _Held:
    """
    A lease in use, and the seconds that it was granted for at first.

    The moments are of the monotonic clock, and ``None`` where there is no end.
    """

    lease: Lease
    asked_seconds: int
    renew_at: float | None
    expires_at: float | None


class VaultSession:
    """
    Reads and writes in Vault, logged in.

    Any failure is ``TemporarilyUnavailable`` (``signer_unavailable``) whose detail names the class
    of fault and nothing more, but for the right that is missing where it is one. A refused token is
    replaced by one login, however many callers were refused, and there is at most one login in
    ``login_cooldown`` seconds, save for those that find nobody there. Nothing happens until the first
    call, and nothing happens in the background.
    """

    def __init__(
        self,
        server: VaultServer,
        *,
        auth: VaultAuth,
        login_cooldown: float = 3.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = VaultHttp(server)
        self._auth = auth
        self._cooldown = login_cooldown
        self._monotonic = monotonic
        self._turn = threading.Lock()
        self._held: _Held | None = None
        self._no_login_before = float("-inf")
        self._last_refusal = Fault.COOLING_DOWN

    def get(self, path: str) -> Mapping[str, Any]:
        """The whole answer to a read."""
        return self._call(lambda token: self._http.get(path, token=token), f"read on {path}")

    def find(self, path: str) -> Mapping[str, Any] | None:
        """The whole answer to a read, or ``None`` when there is nothing at this path."""
        try:
            return self.get(path)
        except TemporarilyUnavailable as error:
            if not _is(error, Fault.MISSING):
                raise
            return None

    def post(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The whole answer to a write, which is sent twice if its connection breaks."""
        return self._call(lambda token: self._http.post(path, body, token=token), _writing(path))

    def attempt(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The whole answer to such a write, or ``None`` when it was refused for what it says."""
        try:
            return self.post(path, body)
        except TemporarilyUnavailable as error:
            if not _is(error, Fault.REFUSED):
                raise
            return None

    def post_once(self, path: str, body: Mapping[str, Any]) -> None:
        """A write that would do more if it were done twice: it is not, if its connection breaks."""
        self._call(
            lambda token: self._http.post(path, body, token=token),
            _writing(path),
            is_repeatable=False,
        )

    def names(self, path: str) -> Sequence[Any]:
        """What there is in a folder, as Vault names it; nothing where there is none."""
        try:
            answer = self._call(lambda token: self._http.list(path, token=token), f"list on {path}")
        except TemporarilyUnavailable as error:
            if not _is(error, Fault.MISSING):
                raise
            return ()
        found = answer.get("data")
        names = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(names, list):
            raise signer_unavailable("vault: malformed answer")
        return names

    def delete(self, path: str) -> None:
        """Have nothing at this path any more; it is sent twice if its connection breaks."""
        self._call(lambda token: self._http.delete(path, token=token), f"delete on {path}")

    def close(self) -> None:
        """Forget the token and close the connections."""
        self._held = None
        self._http.close()

    def _call(self, call: Call, right: str, *, is_repeatable: bool = True) -> Mapping[str, Any]:
        """The answer to a call, which needs a right: a capability of the policy, on a path."""
        try:
            token = self._token()
            try:
                return _call_again_if_dropped(call, token) if is_repeatable else call(token)
            except VaultFault as fault:
                if fault.fault is not Fault.FORBIDDEN:
                    raise
            return call(self._replace(token, because=Fault.FORBIDDEN))
        except VaultFault as fault:
            needed = f" (needs {right})" if fault.fault is Fault.FORBIDDEN else ""
            raise signer_unavailable(f"vault: {fault.fault.value}{needed}") from fault

    def _token(self) -> str:
        held, now = self._held, self._monotonic()
        if held is None:
            return self._replace(None, because=self._last_refusal)
        if held.expires_at is not None and now >= held.expires_at:
            return self._replace(held.lease.token, because=self._last_refusal)
        if held.renew_at is not None and now >= held.renew_at:
            held = self._prolonged(held)
        return held.lease.token

    def _replace(self, refused: str | None, *, because: Fault) -> str:
        """
        Log in, unless somebody else has meanwhile.

        Raises the given fault when the last login was only a moment ago.
        """
        with self._turn:
            if self._held is not None and self._held.lease.token != refused:
                return self._held.lease.token
            return self._login(because).lease.token

    def _login(self, because: Fault) -> _Held:
        now = self._monotonic()
        if now < self._no_login_before:
            raise VaultFault(because)
        self._no_login_before = now + self._cooldown
        try:
            lease = self._auth.login(self._http.post)
        except VaultFault as fault:
            self._last_refusal = fault.fault
            if fault.fault in _AWAY:
                self._no_login_before = self._monotonic() + _KNOCK_AGAIN_SECONDS
            raise
        self._last_refusal = Fault.COOLING_DOWN
        return self._hold(lease, asked_seconds=lease.seconds, since=now)

    def _prolonged(self, held: _Held) -> _Held:
        """
        Renew the token, or log in where that is not possible or no longer gives much.

        The token at hand is good for another third of its lease. So nobody waits for this who comes
        while it goes on, and a failure is not the caller's: it is tried again after the cool-down.
        """
        if not self._turn.acquire(blocking=False):
            return held
        try:
            return self._renew_or_login(held)
        except VaultFault:
            self._held = replace(held, renew_at=self._monotonic() + self._cooldown)
            return self._held
        finally:
            self._turn.release()

    def _renew_or_login(self, held: _Held) -> _Held:
        since = self._monotonic()
        renewed = self._renewed(held) if held.lease.is_renewable else None
        # Near the end of its greatest lifetime a token is renewed for less and less.
        if renewed is None or renewed.seconds < held.asked_seconds / 2:
            return self._login(self._last_refusal)
        return self._hold(renewed, asked_seconds=held.asked_seconds, since=since)

    def _renewed(self, held: _Held) -> Lease | None:
        """The renewed lease, or ``None`` when Vault does not let this token renew itself."""
        body = {"increment": f"{held.asked_seconds}s"}
        token = held.lease.token
        try:
            return granted_lease(self._http.post("auth/token/renew-self", body, token=token))
        except VaultFault as fault:
            if fault.fault is not Fault.FORBIDDEN:
                raise
            return None

    def _hold(self, lease: Lease, *, asked_seconds: int, since: float) -> _Held:
        if lease.seconds == 0:
            self._held = _Held(lease, asked_seconds, None, None)
        else:
            renew_at = since + lease.seconds * _RENEW_AFTER
            self._held = _Held(lease, asked_seconds, renew_at, since + lease.seconds)
        return self._held


def _writing(path: str) -> str:
    # Vault tells these two apart by whether there is something yet.
    return f"create or update on {path}"


def _is(error: TemporarilyUnavailable, fault: Fault) -> bool:
    return isinstance(error.__cause__, VaultFault) and error.__cause__.fault is fault


def _call_again_if_dropped(call: Call, token: str) -> Mapping[str, Any]:
    """
    Call, and once more if the connection was broken.

    A server may close an idle connection at the very moment it is used. What is sent
    through here does no harm when it is done twice.
    """
    try:
        return call(token)
    except VaultFault as fault:
        if fault.fault is not Fault.UNREACHABLE:
            raise
    return call(token)
