"""The settings in force in the words of the file, for people to read."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from broker.config.declarations import GRANTS
from broker.config.settings import Settings
from broker.config.shown_audit import shown_audit

_GRANT_NAMES: Final = {grant: name for name, grant in GRANTS.items()}
_EVERYWHERE: Final = {
    "derives_from": "from",
    "has_email": "email",
    "has_reflection": "reflection",
    "has_spare": "spare",
    "has_token_endpoint_audience": "accepts_token_endpoint_audience",
    "introspects": "introspect",
    "is_administrator": "administer",
    "is_auditor": "read_audit",
    "is_bound": "dpop_bound_access_tokens",
    "is_disabled": "disabled",
    "is_explainer": "explain",
    "is_multi_tenant": "multi_tenant",
    "is_on": "enabled",
    "is_required": "required",
    "is_single_use": "single_use",
    "not_after": "expires_at",
    "quota": "limit",
    "subject_form": "subject",
}
"""What the parts of the broker call otherwise than the file does."""

_OF_AUTH: Final = ("auth_methods", "secrets", "algorithms")
_OF_OTHERS: Final = frozenset(
    {"accounts", "claims", "client_ids", "issuer_client_ids", "jwks", "subjects"}
)
"""Where the names are those that an operator chose."""

_OFF_WITHOUT: Final[Mapping[str, frozenset[str]]] = {
    "listen": frozenset({"http", "grpc", "streams"}),
    "limits": frozenset({"per_client", "per_source"}),
    "audit": frozenset({"review"}),
    "seal": frozenset({"timestamp_url"}),
}
"""What is off when it is not set, by its section: it is shown all the same."""

_NOT_SETTINGS: Final = frozenset({"source", "is_spiffe_bundle", "authorization_server"})
_IN_A: Final = (("s", 1), ("m", 60), ("h", 3600))


def shown(settings: Settings) -> dict[str, Any]:
    """
    The settings as plain values under the names that they have in the file.

    Nothing in it helps to authenticate. What is not set is left out, but for what is off by that.
    """
    masked = settings.masked()
    hosts = masked["fetch"].pop("key_hosts")
    masked["audit"] = shown_audit(masked["audit"])
    masked["keys"] = _keys(masked["keys"])
    masked["state"] = _state(masked["state"])
    pin = "auto" if masked["workers"].pop("is_pinned") else "never"
    masked["workers"]["pin"] = pin
    masked["clients"] = [_client(one) for one in masked["clients"]]
    masked["issuers"] = [_issuer(one, hosts) for one in masked["issuers"]]
    masked["authorization_servers"] = [_server(one) for one in masked["authorization_servers"]]
    terms = masked["client_documents"]
    if terms is not None:
        terms["grants"] = _grants(terms["grants"])
    masked["limits"] = {name: _quota(value) for name, value in masked["limits"].items()}
    named: dict[str, Any] = _renamed(masked)
    return named


def _renamed(value: Any, at: str = "") -> Any:
    if isinstance(value, list):
        return [_renamed(inner) for inner in value]
    if at in _OF_OTHERS or not isinstance(value, Mapping):
        return value
    if at == "scopes":
        return {scope: _renamed(_nameless(inner)) for scope, inner in value.items()}
    shown_as_off = _OFF_WITHOUT.get(at, ())
    return {
        _EVERYWHERE.get(name, name): _renamed(inner, name)
        for name, inner in value.items()
        if (inner is not None or name in shown_as_off) and name not in _NOT_SETTINGS
    }


def _nameless(scope: Mapping[str, Any]) -> dict[str, Any]:
    """A scope as it is set, under its name."""
    return {member: value for member, value in scope.items() if member != "name"}


def _keys(keys: dict[str, Any]) -> dict[str, Any]:
    directory = keys.pop("directory")
    times = keys.pop("times")
    outage = times.pop("outage")
    if keys["vault"] is not None:
        keys["vault"] |= {name: _login(keys["vault"][name]) for name in ("auth", "rotator")}
        keys["vault"]["outage"] = outage
    return {**keys, **times, "dev": {"directory": directory}}


def _login(login: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A login with what belongs to its method."""
    return None if login is None else {name: value for name, value in login.items() if value}


def _state(state: dict[str, Any]) -> dict[str, Any]:
    if state["valkey"] is not None:
        state["valkey"]["cluster"] = state["valkey"]["cluster"] or None
    return state


def _secret(secret: Mapping[str, Any]) -> dict[str, Any]:
    end = secret["not_after"]
    moment = None if end is None else datetime.fromtimestamp(end, UTC).isoformat()
    return {**secret, "not_after": moment}


def _client(client: dict[str, Any]) -> dict[str, Any]:
    of_auth = {name: client.pop(name) for name in _OF_AUTH}
    auth: dict[str, Any] | None = {
        "methods": of_auth["auth_methods"],
        "secrets": [_secret(one) for one in of_auth["secrets"]],
        "algorithms": of_auth["algorithms"],
        **_key_source(client.pop("keys")),
    }
    grants, quota = _grants(client.pop("grants")), _quota(client.pop("quota"))
    # A workload's rule is the only way in for a client without methods.
    auth = auth if of_auth["auth_methods"] else None
    return {"id": client.pop("client_id"), "auth": auth, "grants": grants, **client, "limit": quota}


def _issuer(issuer: dict[str, Any], hosts: Mapping[str, Any]) -> dict[str, Any]:
    rules = issuer.pop("workloads")
    keys = _key_source(issuer.pop("keys"))
    workloads = [{"client": rule["client_id"], "claims": rule["claims"]} for rule in rules]
    accounts = issuer.pop("accounts")
    if accounts is not None and not issuer["is_multi_tenant"]:
        accounts = accounts.get("", {})
    return {
        **issuer,
        **keys,
        "key_hosts": hosts.get(issuer["issuer"]),
        "accounts": accounts,
        "workloads": workloads,
    }


def _server(server: dict[str, Any]) -> dict[str, Any]:
    resources = [
        {"resource": one["resource"], "scopes": list(one["scopes"]), "disabled": one["is_disabled"]}
        for one in server["resources"]
    ]
    return {**server, "resources": resources}


def _key_source(keys: dict[str, Any] | None) -> dict[str, Any]:
    found = {name: value for name, value in (keys or {}).items() if value is not None}
    # The file says only that they are looked up; where, follows from the issuer or the client's id.
    return {name: True if name in {"discovery", "document"} else found[name] for name in found}


def _grants(grants: list[str]) -> list[str]:
    return [_GRANT_NAMES.get(grant, grant) for grant in grants]


def _quota(quota: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A quota with its rate as it is written: in the shortest time that makes it a whole number."""
    if quota is None:
        return None
    rates = ((quota["rate"] * seconds, unit) for unit, seconds in _IN_A)
    written = next((f"{round(rate)}/{unit}" for rate, unit in rates if _is_whole(rate)), "")
    return {**quota, "rate": written or f"{quota['rate']:g}/s"}


def _is_whole(number: float) -> bool:
    return round(number) >= 1 and abs(number - round(number)) < 1e-6 * number
