"""
The test kit as a pytest plugin: one test of yours becomes one for every case.

``def test_tokens(broker_verify): broker_verify()`` is all that a suite needs, with ``--broker-verify-url``. A
suite that starts its server itself says so by a fixture ``broker_verify_url``, which may use
``broker_verify_issuer``.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.verify_server.options import add_options, values_of

if TYPE_CHECKING:
    from broker.verify_server.cases import Result
    from broker.verify_server.issuer import Issuer
    from broker.verify_server.trial import Trial

_OF_OPTIONS: Final = "broker_verify_"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``broker-verify``, each with a longer name."""
    group = parser.getgroup("broker-verify", "the tokens that a server takes")
    group.addoption("--broker-verify-url", metavar="URL", help="the MCP server or API to try")
    add_options(group.addoption, prefix="--broker-verify-")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case becomes a test of its own, in their order."""
    if "broker_verify" in metafunc.fixturenames:
        # The cases load an HTTP client, which no other test run should have to wait for.
        names = list(import_module("broker.verify_server.catalogue").CASES_BY_NAME)
        metafunc.parametrize("broker_verify", names, indirect=True)


@pytest.fixture(scope="session")
def _broker_verify_trusted(pytestconfig: pytest.Config) -> "Iterator[Issuer]":
    asking = import_module("broker.verify_server.told")
    with asking.issuer_of(_asked(pytestconfig)) as issuer:
        yield issuer


@pytest.fixture(scope="session")
def broker_verify_issuer(_broker_verify_trusted: "Issuer") -> str:
    """The issuer that the server must trust; its keys are at ``/jwks``."""
    return _broker_verify_trusted.url


@pytest.fixture(scope="session")
def broker_verify_url(pytestconfig: pytest.Config) -> str:
    """The server to try; override this to start one."""
    url: str | None = pytestconfig.getoption("broker_verify_url")
    if url is None:
        pytest.skip("say --broker-verify-url, or write a fixture broker_verify_url")
    return url


@pytest.fixture(scope="session")
def broker_verify_trial(
    pytestconfig: pytest.Config, _broker_verify_trusted: "Issuer", broker_verify_url: str
) -> "Iterator[Trial]":
    """The trial that all cases belong to."""
    asked = _asked(pytestconfig)
    told = import_module("broker.verify_server.told").told_of(broker_verify_url, asked)
    trials = import_module("broker.verify_server.trial")
    with trials.trial_of(
        told, _broker_verify_trusted, method=asked["method"], ca_file=asked["ca_file"]
    ) as trial:
        trial.stage.server.wait(asked["wait"])
        yield trial


@pytest.fixture
def broker_verify(
    request: pytest.FixtureRequest, broker_verify_trial: "Trial"
) -> Callable[[], None]:
    """Plays one case: the test fails, or is skipped, or is expected to fail where it is advice only."""
    case = import_module("broker.verify_server.catalogue").CASES_BY_NAME[request.param]

    def play() -> None:
        _tell(broker_verify_trial.play(case))

    return play


def _asked(config: pytest.Config) -> dict[str, Any]:
    return values_of(config.option, prefix=_OF_OPTIONS)


def _tell(result: "Result") -> None:
    case = result.case
    sentence = f"{case.sent}: {result.happened}, must be: {case.must}. {case.mend}".strip()
    if result.verdict == "FAIL":
        pytest.fail(sentence, pytrace=False)
    if result.verdict == "WARN":
        pytest.xfail(sentence)
    if result.verdict == "SKIP":
        pytest.skip(result.happened)
