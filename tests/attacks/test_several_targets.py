"""Several tokens of one, in one call: all of them, or none."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.endpoints.allowances import LocalAllowances
from broker.endpoints.limits import Limits, LimitTerms
from broker.errors import Reason, TemporarilyUnavailable
from broker.interfaces import KeyStore, PolicyEngine, SigningKey
from broker.keys.dev import DevKeyStore
from broker.keys.unavailable import signer_unavailable
from broker.model import Quota, RequestContext, Resource, Scope
from broker.policy.cedar import CedarPolicyEngine
from broker.rpc.call import CallMetadata
from broker.rpc.token_service import read_batch
from tests.harness import (
    Answer,
    Broker,
    GrpcFace,
    basic,
    batch_message,
    decode_claims,
    decode_header,
)
from tests.inquiries import revoke, told, untold
from tests.proofs import HOLDER, good_proof, thumbprint
from tests.rpc.calling import Refusal, refusal_of
from tests.stage import Stage
from tests.world import (
    API,
    CLOSED,
    IDP_A,
    ISS,
    MCP_CLAIM,
    NOW,
    OFF,
    RES_1,
    WEB_SECRET,
    Cast,
    Parameters,
    by_assertion,
    exchange_parameters,
    good_access_token,
    good_id_token,
)

ROOT = Path(__file__).parents[2]
PARTS = [f"https://parts.test/{number}" for number in range(16)]
ADDRESS = f"{ISS}/broker.v1.TokenService/ExchangeTokens"
PERMIT = """
@id("servers-reach-the-parts")
permit (principal in ClientGroup::"servers", action == Action::"exchange", resource)
when { resource.uri like "https://parts.test/*" && resource.name == "b:read" };
"""

Target = Mapping[str, str]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> PolicyEngine:
    """The policies of the world, by which servers also reach all parts."""
    folder = tmp_path_factory.mktemp("policies")
    shutil.copy(ROOT / "policies" / "broker.cedarschema", folder)
    shutil.copy(ROOT / "policies" / "guardrails.cedar", folder)
    world = (ROOT / "tests" / "world_policies" / "world.cedar").read_text()
    (folder / "world.cedar").write_text(world + PERMIT)
    return CedarPolicyEngine.load(folder)


def wide_cast() -> Cast:
    """A cast with sixteen more resources, the third of which has tokens of another algorithm."""
    scopes = {name: Scope(name, frozenset({name})) for name in ("a:read", "b:read")}
    cast = Cast()
    for number, name in enumerate(PARTS):
        part = Resource(name, scopes, audiences=frozenset({f"part-{number}"}))
        if number == 2:
            part = replace(part, signing_algorithm="RS256")
        cast = cast.with_resource(part)
    return cast


class FailingKeys:
    """A key store that gives up at one signature; ``made`` counts those before."""

    def __init__(self, inner: KeyStore) -> None:
        self.inner = inner
        self.fails_at = 0
        self.made = 0

    def signing_key(self, algorithm: str) -> SigningKey:
        return _FailingKey(self.inner.signing_key(algorithm), self)

    def public_keys(self) -> Sequence[Mapping[str, str]]:
        return self.inner.public_keys()

    def fresh_for(self) -> int:
        return self.inner.fresh_for()

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True)
class _FailingKey:
    inner: SigningKey
    store: FailingKeys

    @property
    def kid(self) -> str:
        return self.inner.kid

    @property
    def algorithm(self) -> str:
        return self.inner.algorithm

    def sign(self, signing_input: bytes) -> bytes:
        if self.store.made + 1 == self.store.fails_at:
            raise signer_unavailable("it gave up")
        self.store.made += 1
        return self.inner.sign(signing_input)

    def sign_all(self, signing_inputs: Sequence[bytes]) -> Sequence[bytes]:
        return [self.sign(one) for one in signing_inputs]


@dataclass
class Batches:
    """A stage whose gRPC face is asked for several tokens at once."""

    stage: Stage
    face: GrpcFace
    keys: FailingKeys

    @property
    def broker(self) -> Broker:
        return self.stage.broker

    def ask(
        self,
        *targets: Target,
        common: Parameters | None = None,
        authorization: str = "",
        proofs: Sequence[str] = (),
    ) -> tuple[list[Any], str]:
        """The tokens, and the id that the caller is told; raises ``grpc.RpcError``."""
        metadata = [("dpop", proof) for proof in proofs]
        if authorization:
            metadata.append(("authorization", authorization))
        message = batch_message(common or good(), *(parameters_of(target) for target in targets))
        response, call = self.face.stub.ExchangeTokens.with_call(
            message, metadata=tuple(metadata), timeout=20
        )
        trailers = dict(call.trailing_metadata())
        return list(response.issued_tokens), str(trailers["broker-decision-id"])

    def grant(self, *targets: Target, **options: Any) -> list[Any]:
        """The tokens of a batch that must be granted, each with its record."""
        before = len(self.broker.records())
        issued, decision = self.ask(*targets, **options)
        records = self.broker.records()[before:]
        assert [one["decision"] for one in records] == ["permit"] * len(targets)
        assert [one["jti"] for one in records] == [claims(one)["jti"] for one in issued]
        assert {one["group"] for one in records} == {decision}
        return issued

    def refuse(self, *targets: Target, reason: str, **options: Any) -> Refusal:
        """The refusal of a batch, of which nothing leaves and nothing is spent, with its one record."""
        before, spent = len(self.broker.records()), self.broker.spent_count()
        with pytest.raises(grpc.RpcError) as raised:
            self.ask(*targets, **options)
        (record,) = self.broker.records()[before:]
        refusal = refusal_of(raised.value)
        assert (record["decision"], record["reason"]) == ("deny", reason)
        assert record["event_id"] == refusal.info.metadata["decision_id"]
        assert not {"jti", "kid", "group"} & set(record)
        assert "eyJ" not in refusal.everything
        assert self.broker.spent_count() == spent
        return refusal

    def single(self, target: Target) -> Answer:
        """What the face answers to the exchange for this target alone."""
        return self.face.exchange({**good(), **target})


@contextmanager
def staged(folder: Path, engine: PolicyEngine, limits: Limits | None = None) -> Iterator[Batches]:
    """A broker with many resources, behind a gRPC face."""
    with ExitStack() as closing:
        keys = FailingKeys(DevKeyStore(folder / "keys", algorithms=("ES256", "RS256")))
        broker = Broker(folder, cast=wide_cast(), policy=engine, key_store=keys, limits=limits)
        closing.callback(broker.close)
        face = GrpcFace(broker)
        closing.callback(face.close)
        yield Batches(Stage(broker, face), face, keys)


@pytest.fixture
def batches(quick_path: Path, engine: PolicyEngine) -> Iterator[Batches]:
    """Such a broker, which lets everybody ask as often as they like."""
    with staged(quick_path, engine) as found:
        yield found


def good(**changes: Any) -> Parameters:
    """What all tokens of a good batch have in common: server one shows what it was called with."""
    parameters = exchange_parameters(
        good_access_token(), **{"resource": None, "scope": None, **changes}
    )
    return by_assertion("mcp1-srv") | parameters


def part(number: int, scope: str = "b:read") -> Target:
    return {"resource": PARTS[number], "scope": scope}


def parameters_of(target: Target) -> Parameters:
    return {**target}


def claims(issued: Any) -> dict[str, Any]:
    return decode_claims(issued.access_token)


# ---- what is granted


def test_each_target_gets_a_token_of_its_own_in_their_order(batches: Batches) -> None:
    targets = [part(3), {"resource": API, "scope": "b:read b:write"}, part(2), part(0)]

    issued = batches.grant(*targets)

    told_of = [claims(one) for one in issued]
    assert [one["aud"] for one in told_of] == [PARTS[3], API, PARTS[2], PARTS[0]]
    assert [one["scope"] for one in told_of] == ["b:read", "b:read b:write", "b:read", "b:read"]
    assert [one.resource for one in issued] == [PARTS[3], API, PARTS[2], PARTS[0]]
    algorithms = [decode_header(one.access_token)["alg"] for one in issued]
    assert algorithms == ["ES256", "ES256", "RS256", "ES256"]
    assert len({one["jti"] for one in told_of}) == 4
    assert {one["act"]["sub"] for one in told_of} == {"mcp1-srv"}
    # Whoever they are for may ask about them all the same.
    assert told(batches.stage, issued[1].access_token, "mcp1-srv")["aud"] == API


def test_a_batch_says_what_its_single_exchanges_would_have_said(batches: Batches) -> None:
    subject = own_token(batches)
    targets = [part(0), part(1)]
    together = [claims(one) for one in batches.grant(*targets, common=good(subject_token=subject))]

    for target, one in zip(targets, together, strict=True):
        alone = batches.face.exchange({**good(subject_token=subject), **target}).claims
        own = {"jti": "", "txn": ""}
        assert {**one, **own} == {**alone, **own}
        assert one[MCP_CLAIM]["lineage"] == [decode_claims(subject)["jti"]]


def test_a_batch_leaves_one_group_of_records_in_one_piece_of_the_chain(batches: Batches) -> None:
    batches.grant(part(0), part(1), {"audience": "the-api", "scope": "b:read"})

    records = batches.broker.records()
    group = records[0]["group"]
    assert [one["event_id"] for one in records] == [f"{group}#{n}" for n in (1, 2, 3)]
    assert [one["group_number"] for one in records] == [1, 2, 3]
    assert [one["group_size"] for one in records] == [3, 3, 3]
    assert [one["targets_asked"] for one in records] == [[PARTS[0]], [PARTS[1]], ["the-api"]]
    assert [one["resource"] for one in records] == [PARTS[0], PARTS[1], API]
    assert len({one["time"] for one in records}) == 1
    first = records[0]["seq"]
    assert [one["seq"] for one in records] == [first, first + 1, first + 2]


def test_what_may_be_used_once_is_spent_once_for_all(batches: Batches) -> None:
    proof = good_proof(ADDRESS)

    issued = batches.grant(part(0), part(1), part(2), proofs=[proof])

    assert batches.broker.spent_count() == 2
    assert {claims(one)["cnf"]["jkt"] for one in issued} == {thumbprint(HOLDER)}
    assert {one.token_type for one in issued} == {"DPoP"}


def test_sixteen_targets_are_the_most(batches: Batches) -> None:
    assert len(batches.grant(*map(part, range(16)))) == 16

    refusal = batches.refuse(*map(part, range(16)), {"resource": API}, reason="too_many_targets")

    assert refusal.violations == {"targets": "Ask for 16 targets at most in one call."}
    empty: list[Target] = [{}] * 10_000
    batches.refuse(*empty, reason="too_many_targets")
    assert batches.broker.records()[-1]["group_size"] == 17


# ---- what is refused, and how


BAD: dict[str, tuple[Target, str]] = {
    "unknown": ({"resource": "https://nowhere.test/v1"}, "target_unknown"),
    "unknown name": ({"audience": "nobody"}, "target_unknown"),
    "switched off": ({"resource": OFF}, "target_refused"),
    "forbidden": ({"resource": CLOSED, "scope": "b:read"}, "policy_no_permit"),
    "its own": ({"resource": RES_1}, "target_refused"),
    "no URI": ({"resource": "part-1"}, "target_malformed"),
    "too long": ({"resource": "https://parts.test/" + "x" * 2048}, "target_malformed"),
    "none": ({"scope": "b:read"}, "target_missing"),
    "two": ({"resource": PARTS[1], "audience": "the-api"}, "target_conflict"),
    "denied scope": ({"resource": PARTS[1], "scope": "a:read"}, "scope_not_permitted"),
    "unknown scope": ({"resource": PARTS[1], "scope": "c:read"}, "scope_unknown"),
    "one scope twice": ({"resource": PARTS[1], "scope": "b:read b:read"}, "scope_malformed"),
}


@pytest.mark.requirement("TEX-06", "TX-06")
@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_one_bad_target_is_refused_as_it_would_be_alone_and_takes_all_with_it(
    batches: Batches, bad: Target, reason: str
) -> None:
    alone = batches.single(bad)

    for place in (0, 2):
        targets = [part(3), part(4)]
        targets.insert(place, bad)
        refusal = batches.refuse(*targets, reason=reason)

        assert refusal.violations == {f"targets[{place}]": refusal.message}
        assert (refusal.code.name, refusal.info.metadata["error"]) == (alone.status, alone.error)
        assert refusal.message == alone.description
        record = batches.broker.records()[-1]
        assert (record["group_number"], record["group_size"]) == (place + 1, 3)
        assert {PARTS[3], PARTS[4]} < {*record["targets_asked"], "of the bad one"}


@pytest.mark.requirement("TEX-06", "RES-01")
def test_a_forbidden_target_is_refused_with_the_same_bytes_as_an_unknown_one(
    batches: Batches,
) -> None:
    seen = []
    for resource in ("https://nowhere.test/v1", CLOSED, OFF):
        target = {"resource": resource, "scope": "b:read"}
        with pytest.raises(grpc.RpcError) as raised:
            batches.ask(part(0), target)
        refusal = refusal_of(raised.value)
        decision = refusal.info.metadata["decision_id"]
        trailers = {name: str(value) for name, value in refusal.trailers.items()}
        seen.append([one.replace(decision, "") for one in (refusal.message, *trailers.values())])
        assert batches.broker.records()[-1]["group_number"] == 2

    assert seen[0] == seen[1] == seen[2]


def test_no_targets_are_no_request(batches: Batches) -> None:
    refusal = batches.refuse(reason="param_missing")

    assert set(refusal.violations) == {"targets"}


REPEATED: dict[str, list[Target]] = {
    "the same": [part(0), part(1), part(0)],
    "in other letters": [part(0), part(1), {"resource": "HTTPS://Parts.test/0"}],
    "by name": [part(0), part(1), {"audience": "part-0"}],
    "with other scopes": [
        {"resource": API, "scope": "a:read"},
        part(1),
        {"resource": API, "scope": "b:read"},
    ],
}


@pytest.mark.parametrize("targets", REPEATED.values(), ids=REPEATED)
def test_no_two_targets_are_the_same_resource(batches: Batches, targets: list[Target]) -> None:
    refusal = batches.refuse(*targets, reason="target_repeated")

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations == {"targets[2]": "Two of the targets are the same resource."}


@pytest.mark.requirement("TEX-06", "RES-01")
def test_what_a_name_stands_for_is_not_found_out_by_naming_it_twice(batches: Batches) -> None:
    """Who may not have a token for a resource reads the same whether the other name is its name or not."""
    forbidden = Resource(CLOSED, {}, audiences=frozenset({"secret-name"}))
    batches.broker.replace_cast(wide_cast().with_resource(forbidden))

    for name in ("secret-name", "another-name"):
        targets = [{"resource": CLOSED}, {"audience": name}]
        with pytest.raises(grpc.RpcError) as raised:
            batches.ask(*targets)
        assert refusal_of(raised.value).violations == {"targets[0]": Reason.TARGET_UNKNOWN.sentence}


def test_a_caller_that_is_nobody_learns_nothing_of_its_targets(batches: Batches) -> None:
    wrong = good() | by_assertion("mcp1-srv", aud="https://elsewhere.test")

    for targets in ([part(0)], [], [{"resource": "nowhere"}], [part(0)] * 17):
        refusal = batches.refuse(*targets, common=wrong, reason="aud_not_sole_issuer")
        assert refusal.violations == {}
        assert "group_number" not in batches.broker.records()[-1]


@pytest.mark.requirement("RPL-01")
def test_an_assertion_is_good_for_one_batch(batches: Batches) -> None:
    common = good()
    batches.grant(part(0), part(1), common=common)

    refusal = batches.refuse(part(0), part(1), common=common, reason="replay")

    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert refusal.violations == {}


@pytest.mark.requirement("RPL-01", "DPOP-02")
def test_a_proof_is_good_for_one_batch_and_for_no_other_call(batches: Batches) -> None:
    proof = good_proof(ADDRESS)
    batches.grant(part(0), part(1), proofs=[proof])

    batches.refuse(part(0), part(1), proofs=[proof], reason="replay")
    single = good_proof(ADDRESS.removesuffix("s"))
    batches.refuse(part(0), part(1), proofs=[single], reason="pop_htu")
    answer = batches.face.exchange({**good(), **part(0)}, proofs=[good_proof(ADDRESS)])
    assert answer.error == "invalid_dpop_proof"


def test_a_refused_batch_uses_nothing_up(batches: Batches) -> None:
    common, proof = good(), good_proof(ADDRESS)
    batches.refuse(
        part(0), {"resource": CLOSED}, common=common, proofs=[proof], reason="policy_no_permit"
    )

    batches.grant(part(0), part(1), common=common, proofs=[proof])


def test_nothing_is_spent_or_signed_for_a_caller_that_has_stopped_waiting(
    batches: Batches,
) -> None:
    message = batch_message(good(), parameters_of(part(0)), parameters_of(part(1)))
    late = RequestContext("grpc", "late", deadline=time.monotonic() - 1)

    with pytest.raises(TemporarilyUnavailable) as raised:
        batches.broker.endpoints.token.issue_all(late, lambda: read_batch(message, CallMetadata()))

    assert raised.value.reason is Reason.DEADLINE_EXCEEDED
    assert (batches.broker.spent_count(), batches.keys.made) == (0, 0)
    assert [one["decision"] for one in batches.broker.records()] == ["deny"]


@pytest.mark.requirement("R-30")
def test_no_token_leaves_while_records_cannot_be_kept(batches: Batches) -> None:
    place = batches.broker.audit_directory
    place.rename(place.with_name("gone"))
    place.write_bytes(b"no directory any more")

    with pytest.raises(grpc.RpcError) as raised:
        batches.ask(part(0), part(1), part(3))

    refusal = refusal_of(raised.value)
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert refusal.violations == {}
    assert batches.keys.made == 3
    assert "eyJ" not in refusal.everything


@pytest.mark.requirement("R-05")
@pytest.mark.parametrize("number", [1, 3])
def test_a_signer_that_fails_at_any_token_fails_all(batches: Batches, number: int) -> None:
    batches.keys.fails_at = number
    with pytest.raises(grpc.RpcError) as raised:
        batches.ask(part(0), part(1), part(3), part(4))

    refusal = refusal_of(raised.value)
    assert (refusal.code, refusal.violations) == (grpc.StatusCode.UNAVAILABLE, {})
    assert batches.keys.made == number - 1
    (record,) = batches.broker.records()
    assert (record["decision"], record["reason"]) == ("deny", "signer_unavailable")
    assert record["targets_asked"] == [PARTS[0], PARTS[1], PARTS[3], PARTS[4]]
    assert "jti" not in record


@pytest.mark.requirement("TEX-14")
def test_a_chain_that_is_full_gets_no_longer_for_any_target(batches: Batches) -> None:
    act: dict[str, Any] = {"sub": "actor-0", "iss": IDP_A}
    for number in range(1, 5):
        act = {"sub": f"actor-{number}", "iss": IDP_A, "act": act}

    refusal = batches.refuse(
        part(0), common=good(subject_token=good_access_token(act=act)), reason="chain_too_deep"
    )

    assert refusal.violations == {}


def test_what_belongs_to_all_is_refused_before_any_target_is_looked_at(batches: Batches) -> None:
    expired = good_access_token(iat=NOW - 400, exp=NOW - 100)

    refusal = batches.refuse(
        {"resource": CLOSED}, common=good(subject_token=expired), reason="subject_expired"
    )

    assert refusal.violations == {}
    assert "group_number" not in batches.broker.records()[-1]


# ---- what becomes of them


def own_token(batches: Batches) -> str:
    """A token of this broker that agent-x calls server one with."""
    parameters = exchange_parameters(
        good_id_token(),
        subject_token_type="urn:ietf:params:oauth:token-type:id_token",
        resource=RES_1,
        scope="a:read b:read",
    )
    return batches.stage.grant(parameters | by_assertion("agent-x")).token


@pytest.mark.requirement("REV-06", "RPL-08")
def test_tokens_of_a_batch_end_one_by_one_and_all_with_what_they_are_made_of(
    batches: Batches,
) -> None:
    subject = own_token(batches)
    one, two = batches.grant(part(0), part(1), common=good(subject_token=subject))

    revoke(batches.stage, one.access_token, "mcp1-srv")
    untold(batches.stage, one.access_token, reason="revoked")
    told(batches.stage, two.access_token)

    revoke(batches.stage, subject, "agent-x")
    untold(batches.stage, two.access_token, reason="ancestor_revoked")
    batches.refuse(part(0), part(1), common=good(subject_token=subject), reason="revoked")


def test_a_client_with_a_secret_may_ask_for_several(batches: Batches) -> None:
    common = {
        name: value
        for name, value in good(subject_token=good_access_token(aud="https://web.test/mcp")).items()
        if not name.startswith("client_")
    }

    batches.grant(part(0), part(1), common=common, authorization=basic("web-s", WEB_SECRET))

    assert batches.broker.spent_count() == 0


@pytest.mark.requirement("DOS-02")
def test_each_target_takes_one_of_the_client_s_quota_and_a_batch_beyond_it_takes_none(
    quick_path: Path, engine: PolicyEngine
) -> None:
    terms = LimitTerms(per_client=Quota(rate=1, burst=5))
    limits = Limits(LocalAllowances(now=lambda: 0.0), terms, monotonic=lambda: 0.0)
    with staged(quick_path, engine, limits) as batches:
        batches.grant(part(0), part(1))

        refusal = batches.refuse(*map(part, range(4)), reason="client_limit")
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED

        # What is refused has cost nothing.
        batches.grant(part(0), part(1), part(2))
        assert batches.single(part(0)).status == "RESOURCE_EXHAUSTED"


@pytest.mark.requirement("CAU-16")
def test_a_spent_assertion_takes_nothing_of_the_quota_whatever_number_it_is_repeated_for(
    quick_path: Path, engine: PolicyEngine
) -> None:
    terms = LimitTerms(per_client=Quota(rate=1, burst=20))
    limits = Limits(LocalAllowances(now=lambda: 0.0), terms, monotonic=lambda: 0.0)
    with staged(quick_path, engine, limits) as batches:
        seen = good()
        batches.grant(part(0), common=seen)

        batches.refuse(*map(part, range(16)), common=seen, reason="replay")
        bad = {**seen, "subject_token": "x"}
        batches.refuse(*map(part, range(16)), common=bad, reason="malformed_token")
        batches.refuse(*map(part, range(16)), part(0), common=bad, reason="too_many_targets")
        batches.refuse(common=bad, reason="param_missing")

        batches.grant(*map(part, range(16)))
        batches.grant(*map(part, range(3)))
        batches.refuse(part(0), reason="client_limit")


def test_more_targets_than_the_client_s_burst_are_refused_and_told_as_that(
    quick_path: Path, engine: PolicyEngine
) -> None:
    """Not as asked too often: to come back later would never help."""
    terms = LimitTerms(per_client=Quota(rate=1, burst=5))
    limits = Limits(LocalAllowances(now=lambda: 0.0), terms, monotonic=lambda: 0.0)
    with staged(quick_path, engine, limits) as batches:
        refusal = batches.refuse(*map(part, range(6)), reason="batch_beyond_burst")
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "fewer targets" in refusal.everything
        assert [one["parameter"] for one in batches.broker.records()] == ["targets"]

        # It counts as one, or somebody in a loop fills the disk.
        batches.grant(*map(part, range(4)))
        batches.refuse(*map(part, range(6)), reason="client_limit")


def test_each_token_of_a_batch_names_its_own_record(batches: Batches) -> None:
    issued = batches.grant(part(0), part(1), common=good(subject_token=own_token(batches)))
    records = {record["jti"]: record for record in batches.stage.broker.records()[-2:]}
    for one in map(claims, issued):
        name, _, place = one["txn"].partition("@")
        assert name == records[one["jti"]]["event_id"]
        assert int(place.rpartition("/")[2]) <= records[one["jti"]]["seq"]
