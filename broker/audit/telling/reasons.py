"""Why a request was refused, in words for whoever reviews it, who may know more than the caller was told."""

from collections.abc import Mapping
from typing import Final

from broker.errors import Reason

_TOLD_ALIKE: Final[Mapping[Reason, str]] = {
    Reason.ALG_NOT_ALLOWED: "the token is signed by an algorithm that its issuer is not registered for",
    Reason.KEY_ALG_MISMATCH: "the token's algorithm is not that of the key that should have signed it",
    Reason.UNKNOWN_KEY: "the token names a key that its issuer does not have",
    Reason.SIG_INVALID: "the token's signature does not verify",
    Reason.KEY_NOT_FOR_SIG: "the token names a key that is not meant for signatures",
    Reason.ISS_UNKNOWN: "the token's issuer is not registered",
    Reason.ISSUER_DISABLED: "the token's issuer is switched off",
    Reason.ISSUER_NOT_FOR_PURPOSE: "the token's issuer is not registered for tokens of this sort",
    Reason.ISSUER_NOT_FOR_CLIENT: "the client may not present tokens of this issuer",
    Reason.CLIENT_UNKNOWN: "no such client is registered",
    Reason.CLIENT_DISABLED: "the client is switched off",
    Reason.BAD_SECRET: "the client's secret is wrong",
    Reason.BASIC_MALFORMED: "the client's Authorization header cannot be read",
    Reason.AUTH_METHOD_REFUSED: "the client is not registered for the way in which it authenticated",
    Reason.CIMD_URL_INVALID: "the client's id is no address at which a client document may stand",
    Reason.CIMD_DOMAIN_REFUSED: "client documents of that host are not accepted",
    Reason.CIMD_ID_MISMATCH: "the client document names another client than its address",
    Reason.CIMD_INVALID: "the client document is malformed",
    Reason.CIMD_FORBIDDEN_AUTH: "the client document asks for a way to authenticate that is refused",
    Reason.FETCH_BLOCKED: "what had to be fetched is at an address that may not be reached",
    Reason.FETCH_REDIRECT: "what had to be fetched was answered by a redirect",
    Reason.FETCH_STATUS: "what had to be fetched was answered by an error",
    Reason.FETCH_TIMEOUT: "what had to be fetched took too long",
    Reason.FETCH_TLS: "what had to be fetched is at a host without a valid certificate",
    Reason.FETCH_FAILED: "what had to be fetched could not be fetched",
    Reason.FETCH_LIMIT: "more had to be fetched at once than is fetched for anybody",
    Reason.TARGET_UNKNOWN: "no such resource is registered",
    Reason.TARGET_REFUSED: "the resource is not for this request, whatever policy says",
    Reason.POLICY_NO_PERMIT: "no policy permits it",
    Reason.POLICY_FORBIDDEN: "a policy forbids it",
    Reason.POLICY_ERROR: "a policy could not be evaluated, which denies",
    Reason.TARGET_CONFLICT: "the names given for the target are those of different resources",
    Reason.SCOPE_EXCEEDS_SUBJECT: "the subject token has none of the scopes that those asked for derive from",
    Reason.SCOPE_NOT_PERMITTED: "policy permits none of the scopes asked for",
    Reason.REVOKED: "the token was withdrawn",
    Reason.ANCESTOR_REVOKED: "a token that this one derives from was withdrawn",
    Reason.PRINCIPAL_DISABLED: "somebody or something that the token names is switched off",
    Reason.REPLAY_STORE_UNAVAILABLE: "it could not be remembered which one-time ids are spent",
    Reason.REVOCATION_UNAVAILABLE: "it could not be known which tokens are withdrawn",
    Reason.SIGNER_UNAVAILABLE: "the signing key could not be used",
    Reason.AUDIT_UNAVAILABLE: "the audit record could not be written",
    Reason.OVERLOADED: "the broker had more to do than it can",
    Reason.CONFIGURATION_STALE: "the settings in force could not be loaded by every process",
    Reason.CLOCK_WENT_BACK: "the clock of the machine stood behind a moment that was already past",
}
"""Where several reasons are told to callers in the same words, or in words that say nothing."""

_BY_CODE: Final[Mapping[str, str]] = {
    reason.code: _TOLD_ALIKE.get(reason, "")
    or reason.sentence[0].lower() + reason.sentence[1:].removesuffix(".")
    for reason in Reason
}


def reason_in_words(code: str) -> str:
    """
    The reason of a record as a clause without a full stop: ``the token was withdrawn``.

    A code that this version does not know is told as it stands; it is still to be made harmless.
    """
    return _BY_CODE.get(code) or code
