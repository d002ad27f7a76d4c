"""From a file and an environment to settings, or to everything that is wrong with them."""

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

from broker.config.building import build
from broker.config.check_broker import check_broker
from broker.config.check_client_documents import check_client_documents
from broker.config.check_clients import check_clients
from broker.config.check_issuers import check_issuers
from broker.config.check_resources import check_resources
from broker.config.check_servers import check_servers
from broker.config.check_workloads import check_workloads
from broker.config.document import Node
from broker.config.findings import Finding, Scene
from broker.config.names import names_in
from broker.config.places import Places
from broker.config.problems import ConfigError, Problem, dotted
from broker.config.reading import Reading, read_sections
from broker.config.settings import Settings
from broker.config.sources import lay_over, read_file


def load_settings(
    path: FilePath, environ: Mapping[str, str], *, is_single_process: bool = False
) -> Settings:
    """
    The settings in a file, with the ``BROKER_*`` variables of ``environ`` laid over them.

    ``is_single_process`` says that all faces will run in one process, which lets them share memory.
    Raises ``ConfigError`` with every problem there is: nothing is used of a file that has one.
    """
    root = read_file(path)
    problems = lay_over(root, environ)
    reading = read_sections(root)
    problems.extend(reading.problems)
    scene = _scene(reading, root, path=path, is_single_process=is_single_process)
    problems.extend(_problem(finding, root) for finding in _findings(scene))
    if problems:
        raise ConfigError(sorted(problems, key=_place))
    return build(scene)


def _scene(reading: Reading, root: Node, *, path: FilePath, is_single_process: bool) -> Scene:
    file, at = reading.file, reading.positions
    return Scene(
        file=file,
        names=names_in(root.plain()),
        places=Places(root, path),
        clients=tuple(
            (("clients", n), one) for n, one in zip(at["clients"], file.clients, strict=True)
        ),
        resources=tuple(
            (("resources", n), one) for n, one in zip(at["resources"], file.resources, strict=True)
        ),
        issuers=tuple(
            (("issuers", n), one) for n, one in zip(at["issuers"], file.issuers, strict=True)
        ),
        broken=reading.broken,
        is_single_process=is_single_process,
    )


def _findings(scene: Scene) -> Iterator[Finding]:
    yield from check_broker(scene)
    yield from check_clients(scene)
    yield from check_client_documents(scene)
    yield from check_resources(scene)
    yield from check_issuers(scene)
    yield from check_workloads(scene)
    yield from check_servers(scene)


def _place(problem: Problem) -> tuple[int, int, str]:
    return problem.mark.line, problem.mark.column, problem.mark.source


def _problem(finding: Finding, root: Node) -> Problem:
    mark = root.mark_of(finding.path, is_key=finding.is_key)
    return Problem(mark, dotted(finding.path), finding.sentence, finding.suggestion)
