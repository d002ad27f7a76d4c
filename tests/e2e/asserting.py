"""Brokers between which identity assertions travel: one that makes them, and the wiki's, which redeems."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from broker.oauth import (
    GRANT_JWT_BEARER,
    GRANT_TOKEN_EXCHANGE,
    TOKEN_TYPE_ID_JAG,
    TOKEN_TYPE_ID_TOKEN,
    TYP_ID_JAG,
)
from tests.e2e.setting import (
    DESK,
    IDP,
    Document,
    Setting,
    assertion,
    by_assertion,
    fresh_id,
    id_token,
    idp_key,
    new_setting,
)
from tests.idp import signer
from tests.world import Parameters, without_none

WIKI: Final = "https://wiki.mcp.example/mcp"
DESK_AT_WIKI: Final = "agent-desk-at-wiki"
PAGES: Final = "pages.read"


def wiki_setting(directory: Path, issuer: Mapping[str, Any]) -> Setting:
    """A broker that issues the wiki's tokens, by the assertions of one issuer."""
    agent = {
        "id": DESK_AT_WIKI,
        "profile": "ai_agent",
        "auth": {"method": "private_key_jwt", "jwks": signer(DESK_AT_WIKI).jwks},
        "grants": ["jwt_bearer"],
    }
    wiki = {"resource": WIKI, "scopes": {PAGES: {}, "pages.write": {}}}
    return new_setting(directory, clients=[agent], resources=[wiki], issuers=[dict(issuer)])


def idp_entry(**changes: Any) -> Document:
    """The identity provider, as a maker of assertions."""
    return {
        "issuer": IDP,
        "purposes": ["id_jag"],
        "algorithms": ["ES256"],
        "jwks": idp_key().jwks,
        **changes,
    }


def server_entry(wiki: Setting, **changes: Any) -> Document:
    """The wiki's broker, as others know it who make assertions for it."""
    return {
        "issuer": wiki.issuer,
        "client_ids": {DESK: DESK_AT_WIKI},
        "resources": [{"resource": WIKI, "scopes": [PAGES, "pages.write"]}],
        **changes,
    }


def id_jag(wiki: Setting, **changes: Any) -> str:
    """Ann's assertion by the identity provider, for the agent at the wiki."""
    now = int(time.time())
    claims = {
        "iss": IDP,
        "sub": "ann",
        "aud": wiki.issuer,
        "client_id": DESK_AT_WIKI,
        "resource": WIKI,
        "scope": PAGES,
        "iat": now,
        "exp": now + 290,
        "jti": fresh_id(),
        **changes,
    }
    return idp_key().sign(without_none(claims), typ=TYP_ID_JAG)


def redeem(wiki: Setting, token: str = "") -> Parameters:
    """The agent redeems an assertion at the wiki's broker: its user's own, or the one given."""
    return {
        "grant_type": GRANT_JWT_BEARER,
        "assertion": token or id_jag(wiki),
        **by_assertion(assertion(wiki, DESK_AT_WIKI)),
    }


def ask_for_assertion(home: Setting, wiki: Setting, **identity: Any) -> Parameters:
    """The agent has its broker at home assert Ann to the wiki's."""
    return {
        "grant_type": GRANT_TOKEN_EXCHANGE,
        "requested_token_type": TOKEN_TYPE_ID_JAG,
        "subject_token": id_token(**identity),
        "subject_token_type": TOKEN_TYPE_ID_TOKEN,
        "audience": wiki.issuer,
        "resource": WIKI,
        "scope": PAGES,
        **by_assertion(assertion(home, DESK)),
    }
