"""What may stand in ``broker.yaml`` about the auditor's pages."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from broker.config.kinds import (
    Algorithm,
    Duration,
    FileName,
    HostName,
    Identifier,
    Scope,
    SubjectName,
    Url,
    holding,
    lasting,
)
from broker.config.section import Section


class ReviewOidcSection(Section):
    """Login of auditors at an OpenID provider. Nobody is let in but by `subjects` or `claim`."""

    issuer: Url = Field(description="The provider's issuer, compared byte for byte.")
    client_id: Identifier = Field(description="The broker's client id there.")
    client_secret_file: FileName | None = Field(
        default=None, description="A file with the client's secret; a public client has none."
    )
    algorithms: Annotated[list[Algorithm], holding(1, 6)] = Field(
        default=["ES256", "RS256"], description="The algorithms of its ID tokens."
    )
    scopes: Annotated[list[Scope], holding(1, 16)] = Field(
        default=["openid"], description="The scopes to ask for; `openid` must be one."
    )
    hosts: Annotated[list[HostName], holding(0, 8)] = Field(
        default=[],
        description="Hosts besides the issuer's own at which its endpoints and keys are.",
    )
    subjects: Annotated[list[SubjectName], holding(0, 1000)] = Field(
        default=[], description="The `sub` of each auditor."
    )
    claim: Identifier | None = Field(
        default=None, description="A claim of the ID token that tells auditors, such as `groups`."
    )
    values: Annotated[list[SubjectName], holding(0, 64)] = Field(
        default=[], description="Its values, or members, that make an auditor."
    )
    name_claim: Identifier = Field(
        default="sub", description="The claim that an auditor is called by in records."
    )


class ReviewSection(Section):
    """The auditor's pages. Auditors log in by a link of `broker audit open`, or at a provider."""

    url: Url | None = Field(
        default=None,
        description="Where browsers find the operators' port, such as `https://audit.example.com`: a proxy "
        "in front passes `/audit` on, and nothing else. `http://` and `listen.admin` when not set.",
    )
    session_lifetime: Annotated[Duration, lasting("5m", "24h")] = Field(
        default=timedelta(hours=8), description="How long a login lasts."
    )
    idle_timeout: Annotated[Duration, lasting("1m", "8h")] = Field(
        default=timedelta(minutes=30), description="How long a login lasts without a request."
    )
    oidc: ReviewOidcSection | None = Field(
        default=None, description="Login at an OpenID provider; none when not set."
    )
