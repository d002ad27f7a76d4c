"""A verifier that keeps the key set for as long as it was told to, and fetches it for nothing else."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import jwt
import urllib3

from tests.e2e.load import Load
from tests.e2e.setting import Setting

_STOP_SECONDS: Final = 60.0
_BEFORE_EXPIRY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Unverified:
    """
    A token that did not verify before it expired, and what the verifier had seen of its key until then.

    All moments are of the Unix clock. ``key_set_of`` is when the key set that it was judged by was asked
    for, ``first_shown`` and ``last_shown`` are when the first and the last were that had the key.
    """

    kid: str
    issued_at: int
    expires_at: int
    looked_at: float
    key_set_of: float
    first_shown: float | None
    last_shown: float | None
    answer: str


class KeepingVerifier:
    """
    ``with`` verifies every token of a load as it arrives, and once more shortly before it expires.

    It does not fetch the key set for a key that it does not know. ``failures`` are the tokens that had not
    expired and that it could not verify; ``kids`` are the keys of those that it could. ``late`` counts what
    had expired by the time that it was looked at, on a machine that is too busy: its key may be gone.
    """

    def __init__(self, setting: Setting, load: Load) -> None:
        self._setting = setting
        self._load = load
        self._http = urllib3.PoolManager(retries=False, timeout=30)
        self._keys: dict[str, Any] = {}
        self._kept_until = 0.0
        self._seen = 0
        self._waiting: list[tuple[float, str]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._fault: BaseException | None = None
        self._fetched_at = 0.0
        self._shown: dict[str, tuple[float, float]] = {}
        self.failures: list[Unverified] = []
        self.revoked: set[str] = set()
        self.kids: dict[str, int] = {}
        self.late = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)
        self._http.clear()
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            while not self._stopping.wait(0.02):
                self._look()
        except BaseException as fault:  # noqa: BLE001 - it is raised again where this ends.
            self._fault = fault

    def _look(self) -> None:
        calls = self._load.calls
        arrived = [call.token for call in calls[self._seen :] if call.token]
        self._seen = len(calls)
        for token in arrived:
            self._verify(token)
            self._waiting.append((_claims(token)["exp"] - _BEFORE_EXPIRY, token))
        now = time.time()
        due = [token for moment, token in self._waiting if moment <= now]
        self._waiting = [one for one in self._waiting if one[0] > now]
        for token in due:
            self._verify(token)

    def _verify(self, token: str) -> None:
        if time.monotonic() >= self._kept_until:
            self._fetch()
        header, claims = jwt.get_unverified_header(token), _claims(token)
        kid = header["kid"]
        if kid in self.revoked:
            return
        # The signature is judged by this moment and not by a later one, however long the check takes.
        looked_at = time.time()
        if claims["exp"] <= looked_at:
            # Nobody has to know its key any more.
            self.late += 1
            return
        try:
            jwt.decode(
                token,
                self._keys[kid],
                algorithms=[header["alg"]],
                options={"verify_aud": False, "verify_exp": False},
            )
        except (jwt.InvalidTokenError, KeyError) as error:
            first, last = self._shown.get(kid, (None, None))
            self.failures.append(
                Unverified(
                    kid=kid,
                    issued_at=claims["iat"],
                    expires_at=claims["exp"],
                    looked_at=looked_at,
                    key_set_of=self._fetched_at,
                    first_shown=first,
                    last_shown=last,
                    answer=repr(error),
                )
            )
        else:
            self.kids[kid] = self.kids.get(kid, 0) + 1

    def _fetch(self) -> None:
        begun, self._fetched_at = time.monotonic(), time.time()
        answer = self._http.request("GET", f"{self._setting.issuer}/jwks")
        assert answer.status == 200, answer.data
        max_age = int(answer.headers["Cache-Control"].partition("max-age=")[2])
        self._keys = {jwk["kid"]: jwt.PyJWK(jwk) for jwk in answer.json()["keys"]}
        self._kept_until = begun + max_age
        for kid in self._keys:
            first, _ = self._shown.get(kid, (self._fetched_at, self._fetched_at))
            self._shown[kid] = (first, self._fetched_at)


def _claims(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
