"""A quota is one quota, whichever worker is asked."""

import itertools
from pathlib import Path

import pytest

from tests.e2e.conftest import Starting
from tests.e2e.patience import until
from tests.e2e.setting import TICKETS, exchange, new_setting
from tests.e2e.wires import wire


@pytest.mark.requirement("DOS-02")
def test_a_client_has_one_quota_at_both_faces(starting: Starting, tmp_path: Path) -> None:
    setting = new_setting(tmp_path)
    clients = [
        {**client, "limit": {"rate": "1/h", "burst": 12}} if client["id"] == TICKETS else client
        for client in setting.document["clients"]
    ]
    broker = starting(setting.with_document(clients=clients))

    with wire("http", broker.setting) as http, wire("grpc", broker.setting) as grpc:
        faces = itertools.cycle([http, grpc])
        answers = [next(faces).exchange(exchange(broker.setting)) for _ in range(20)]

    assert [one.is_granted for one in answers] == [True] * 12 + [False] * 8
    assert {one.status for one in answers[12:]} == {"429", "RESOURCE_EXHAUSTED"}
    refused = [one for one in broker.records() if one["decision"] == "deny"]
    assert {one["reason"] for one in refused} == {"client_limit"}
    by_http = [one for one in refused if one["face"] == "http"]
    # One every ten seconds of each worker, so one in all unless the machine is very busy.
    assert by_http
    assert len(by_http) < len(refused) < 8
    line = f'broker_turned_away_total{{face="http",reason="client_limit"}} {4 - len(by_http)}.0'
    until(lambda: line in broker.page("/metrics"), seconds=30, what="it is counted")
