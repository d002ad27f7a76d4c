"""Decision tables as written: YAML rows of a request, the expected verdict, and the policy to credit."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from broker.model import (
    Action,
    Authentication,
    Client,
    Delegation,
    JsonObject,
    PolicyQuery,
    Relation,
    Resource,
    Scope,
    Subject,
    Verdict,
)
from broker.policy.files import PolicyFile
from broker.policy.problems import PolicyLoadError, Problem

_MAX_BYTES = 256 * 1024
_MAX_NODES = 20_000
_MAX_DEPTH = 8
_NOW = 1_000_000_000
_ROW = re.compile(r"\$\.rows\[(\d+)\]")

Text = Annotated[str, Meta(min_length=1, max_length=2_000)]
Texts = Annotated[list[Text], Meta(max_length=200)]
Seconds = Annotated[int, Meta(ge=0, le=10_000_000)]


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    """How the user logged in: context class, age of the login in seconds, methods."""

    acr: Text | None = None
    age: Seconds | None = None
    amr: Texts = []


class RowRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The request of a row.

    Without ``subject_scopes`` the subject token has none of its own, as an ID token.
    ``derives_from`` is by default the scope's own name. ``chain_depth`` counts the actors of the
    token to be minted, its client included.
    """

    client: Text
    resource: Annotated[str, Meta(min_length=1, max_length=2_000, pattern="^[^#]+$")]
    scope: Text
    relation: Relation
    action: Action = Action.EXCHANGE
    client_groups: Texts = []
    client_profile: Text = "service"
    client_tenant: Text | None = None
    resource_owner: Text | None = None
    resource_tenant: Text | None = None
    authorization_server: Text | None = None
    scope_groups: Texts = []
    derives_from: Texts | None = None
    subject: Text = "alice"
    subject_issuer: Text = "https://idp.example"
    subject_kind: Literal["user", "client"] = "user"
    tenant: Text | None = None
    subject_scopes: Texts | None = None
    subject_audience: Text | None = None
    has_actor_token: bool = False
    is_bound: bool = False
    mcp_client: Text | None = None
    mcp_server: Text | None = None
    chain_depth: Annotated[int, Meta(ge=0, le=64)] = 1
    auth: Login = Login()


class ExpectedStepUp(Struct, frozen=True, forbid_unknown_fields=True):
    """The login that the caller should be asked for."""

    acr_values: str = ""
    max_age: Seconds | None = None


class Row(Struct, frozen=True, forbid_unknown_fields=True):
    """
    One row: this request gets this verdict because of these policies.

    ``because`` names every deciding policy; a default denial has none. ``max_ttl`` (seconds) and
    ``step_up`` are compared only where they are given.
    """

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    request: RowRequest
    expect: Verdict
    because: Text | Texts = []
    max_ttl: Seconds | None = None
    step_up: ExpectedStepUp | None = None

    @property
    def policy_ids(self) -> tuple[str, ...]:
        """The ids of ``because``, sorted."""
        named = [self.because] if isinstance(self.because, str) else self.because
        return tuple(sorted(named))


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A decision table. ``defaults`` are request members that every row has unless it says other."""

    rows: Annotated[list[Row], Meta(min_length=1, max_length=5_000)]
    defaults: dict[str, Any] = {}


def read_rows(file: PolicyFile) -> list[tuple[int, Row]]:
    """The rows of a table, each with its line. Raises ``PolicyLoadError``."""
    lines: list[int] = []
    try:
        lines = _measured(file)
        raw = YAML(typ="safe", pure=True).load(file.text)
        table = msgspec.convert(_with_defaults(raw), Table)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or "it is not YAML").split())
        raise _refusal(file, 0 if mark is None else mark.line + 1, f"{reason}.") from error
    except msgspec.ValidationError as error:
        row = _ROW.search(str(error))
        line = lines[int(row.group(1))] if row is not None else 0
        raise _refusal(file, line, f"{error}.") from error
    return list(zip(lines, table.rows, strict=True))


def query_of(request: RowRequest) -> PolicyQuery:
    """The query that the row's request amounts to."""
    age = request.auth.age
    scope = Scope(
        request.scope,
        frozenset([request.scope] if request.derives_from is None else request.derives_from),
        frozenset(request.scope_groups),
    )
    return PolicyQuery(
        client=Client(
            request.client,
            frozenset(),
            frozenset(),
            groups=frozenset(request.client_groups),
            profile=request.client_profile,
            tenant=request.client_tenant,
        ),
        delegation=Delegation(
            subject=Subject(
                request.subject, request.subject_issuer, request.subject_kind, request.tenant
            ),
            relation=request.relation,
            action=request.action,
            scopes=None if request.subject_scopes is None else frozenset(request.subject_scopes),
            not_after=None,
            inherited_act=_chain(request.chain_depth),
            subject_audience=request.subject_audience,
            has_actor_token=request.has_actor_token,
            confirmation="thumbprint" if request.is_bound else None,
            mcp_client=request.mcp_client,
            mcp_server=request.mcp_server,
            authentication=Authentication(
                None if age is None else _NOW - age, request.auth.acr, tuple(request.auth.amr)
            ),
        ),
        resource=Resource(
            request.resource,
            {scope.name: scope},
            owner=request.resource_owner,
            authorization_server=request.authorization_server,
            tenant=request.resource_tenant,
        ),
        scopes=(scope,),
        now=_NOW,
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a table, for editors. What ``defaults`` give, a row need not repeat."""
    schema = msgspec.json.schema(Table)
    definitions = schema["$defs"]
    definitions["RowRequest"].pop("required")
    definitions["Table"]["properties"]["defaults"] = {"$ref": "#/$defs/RowRequest"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _chain(depth: int) -> JsonObject | None:
    act: JsonObject | None = None
    for number in range(depth):
        act = {"sub": f"actor-{number}"} if act is None else {"sub": f"actor-{number}", "act": act}
    return act


def _with_defaults(raw: Any) -> Any:
    if not isinstance(raw, dict) or not isinstance(raw.get("rows"), list):
        return raw
    defaults = raw.get("defaults", {})
    if not isinstance(defaults, dict):
        return raw
    return {**raw, "rows": [_with_default_request(row, defaults) for row in raw["rows"]]}


def _with_default_request(row: Any, defaults: dict[Any, Any]) -> Any:
    if isinstance(row, dict) and isinstance(row.get("request"), dict):
        return {**row, "request": {**defaults, **row["request"]}}
    return row


def _measured(file: PolicyFile) -> list[int]:
    """The line of each row. Refuses what is too large or deep, and aliases, before it is built."""
    if len(file.text) > _MAX_BYTES:
        raise _refusal(file, 0, "The table is too large.")
    node = YAML(typ="safe", pure=True).compose(file.text)
    _bound(file, node)
    members = node.value if isinstance(node, MappingNode) else []
    rows = next((value for key, value in members if key.value == "rows"), None)
    return [row.start_mark.line + 1 for row in rows.value] if isinstance(rows, SequenceNode) else []


def _bound(file: PolicyFile, root: Node | None) -> None:
    seen: set[int] = set()
    waiting: list[tuple[Node, int]] = [] if root is None else [(root, 1)]
    while waiting:
        node, depth = waiting.pop()
        line = node.start_mark.line + 1
        if id(node) in seen:
            raise _refusal(file, line, "Aliases are not accepted.")
        if depth > _MAX_DEPTH or len(seen) > _MAX_NODES:
            raise _refusal(file, line, "The table is nested too deeply or has too many values.")
        seen.add(id(node))
        waiting += [(child, depth + 1) for child in _below(node)]


def _below(node: Node) -> Sequence[Node]:
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, SequenceNode) else ()


def _refusal(file: PolicyFile, line: int, sentence: str) -> PolicyLoadError:
    return PolicyLoadError([Problem(file.name, line, f"The table cannot be read: {sentence}")])
