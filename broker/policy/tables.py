"""Runs decision tables: each row must be decided as it says, by the policies that it credits."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.model import Decision, PolicyReference, StepUp, Verdict
from broker.policy.deciding import answers, decide
from broker.policy.evaluation import Answer
from broker.policy.policy_set import PolicySet, read_policy_set
from broker.policy.problems import PolicyLoadError, Problem
from broker.policy.table_rows import Row, query_of, read_rows


@dataclass(frozen=True, slots=True)
class RowResult:
    """How one row came out. ``faults`` are sentences; a row without any passes."""

    file: str
    line: int
    name: str
    expected: Verdict
    got: Verdict
    expected_ids: tuple[str, ...]
    policy_ids: tuple[str, ...]
    faults: tuple[str, ...] = ()

    @property
    def is_passing(self) -> bool:
        """Whether everything came out as the row says."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class TableReport:
    """All rows of a set, and the policies that decide none of them."""

    rows: tuple[RowResult, ...]
    uncovered: tuple[PolicyReference, ...]

    @property
    def is_passing(self) -> bool:
        """Whether every row passes and every policy decides at least one."""
        return not self.uncovered and all(row.is_passing for row in self.rows)

    @property
    def wrong_rows(self) -> tuple[Problem, ...]:
        """The rows that do not come out as they say, in order of place."""
        return tuple(
            Problem(row.file, row.line, f"The row {row.name!r} fails: {fault}")
            for row in self.rows
            for fault in row.faults
        )

    @property
    def untested(self) -> tuple[Problem, ...]:
        """The policies that no row is about; they may be put in force, and nobody knows what they do."""
        return tuple(
            Problem(
                one.file, one.line, f"No row of a decision table is decided by {one.policy_id}."
            )
            for one in self.uncovered
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything that keeps the report from passing, in order of place."""
        return tuple(sorted([*self.wrong_rows, *self.untested]))


@dataclass(frozen=True, slots=True)
class Findings:
    """What keeps a policy folder from being put in force, and what is worth a look besides."""

    problems: tuple[Problem, ...] = ()
    remarks: tuple[Problem, ...] = ()


def check(directory: Path) -> Findings:
    """What is to be said about a policy folder: files, syntax, types, lint, rows, coverage."""
    try:
        report = run_tables(directory)
    except PolicyLoadError as error:
        return Findings(tuple(error.problems))
    return Findings(report.wrong_rows, report.untested)


def run_tables(directory: Path) -> TableReport:
    """Run the decision tables of a folder. Raises ``PolicyLoadError`` when it cannot be read."""
    return run_rows(read_policy_set(directory))


def run_rows(policies: PolicySet) -> TableReport:
    """Run the decision tables of a set. Raises ``PolicyLoadError`` when a table cannot be read."""
    results = tuple(
        _run(policies, row, file=file.name, line=line)
        for file in policies.tables
        for line, row in read_rows(file)
    )
    deciding = {policy_id for result in results for policy_id in result.policy_ids}
    idle = [
        policy.reference
        for policy_id, policy in policies.whole.policies.items()
        if policy_id not in deciding
    ]
    return TableReport(results, tuple(sorted(idle, key=lambda one: (one.file, one.line))))


def _run(policies: PolicySet, row: Row, *, file: str, line: int) -> RowResult:
    query = query_of(row.request)
    chosen = policies.slices.slice_for(query.client)
    facts = chosen.sight.facts(query)
    (got,) = answers(chosen, facts, row.request.action)
    (in_full,) = policies.answers_in_full(query, action=row.request.action)
    decision = decide(chosen, facts, digest=policies.digest)
    faults = [*_verdict_faults(row, got, in_full=in_full), *_obligation_faults(row, decision)]
    return RowResult(
        file=file,
        line=line,
        name=row.name,
        expected=row.expect,
        got=got.verdict,
        expected_ids=row.policy_ids,
        policy_ids=got.policy_ids,
        faults=tuple(faults),
    )


def _verdict_faults(row: Row, got: Answer, *, in_full: Answer) -> Iterator[str]:
    if got.verdict is not row.expect:
        reasons = "; ".join(got.errors) or _named(got.policy_ids)
        yield f"expected {row.expect}, got {got.verdict} ({reasons})."
    elif got.policy_ids != row.policy_ids:
        yield f"expected because {_named(row.policy_ids)}, got {_named(got.policy_ids)}."
    if (got.verdict, got.policy_ids) != (in_full.verdict, in_full.policy_ids):
        yield f"the whole set decides otherwise: {in_full.verdict} ({_named(in_full.policy_ids)})."


def _obligation_faults(row: Row, decision: Decision) -> Iterator[str]:
    limit = decision.max_lifetime
    max_ttl = None if limit is None else int(limit.total_seconds())
    if row.max_ttl is not None and row.max_ttl != max_ttl:
        yield f"expected max_ttl {row.max_ttl}, got {max_ttl}."
    if row.step_up is not None:
        wanted = StepUp(row.step_up.acr_values, row.step_up.max_age)
        if wanted != decision.step_up:
            yield f"expected {_login(wanted)}, got {_login(decision.step_up)}."


def _login(step_up: StepUp | None) -> str:
    if step_up is None:
        return "no step_up"
    return f"step_up with acr_values {step_up.acr_values!r} and max_age {step_up.max_age}"


def _named(policy_ids: tuple[str, ...]) -> str:
    return ", ".join(policy_ids) or "no policy"
