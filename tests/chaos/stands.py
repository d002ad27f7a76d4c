"""Whole brokers with real dependencies, each behind a proxy that can be told to fail."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.oracle import spent_in_valkey
from tests.e2e.running import RunningBroker
from tests.e2e.setting import Setting, new_setting
from tests.e2e.twins import valkey_state
from tests.e2e.vault import Vault, running_vault
from tests.fault_proxy import FaultProxy, fault_proxy
from tests.valkey import ValkeyServer, running

WORKERS: Final = 2
SHORT_LEEWAY: Final = {"leeway": "1s"}


@dataclass
class Stand:
    """A broker that signs in OpenBao and remembers in Valkey."""

    broker: RunningBroker
    vault: Vault
    valkey: ValkeyServer
    lines: dict[str, FaultProxy]

    @property
    def setting(self) -> Setting:
        """What its clients have to know."""
        return self.broker.setting

    def spent(self) -> set[bytes]:
        """The ids that its store has as spent."""
        return spent_in_valkey(self.valkey)


@contextmanager
def stand(folder: Path, **sections: Any) -> Iterator[Stand]:
    """One that is ready, with several workers of each face."""
    with ExitStack() as closing:
        vault = closing.enter_context(running_vault(folder / "vault"))
        valkey = closing.enter_context(running(folder / "valkey"))
        lines = {
            "vault": closing.enter_context(fault_proxy(vault.bao.port)),
            "valkey": closing.enter_context(fault_proxy(valkey.port)),
        }
        keys = vault.keys()
        keys["vault"] = keys["vault"] | {"url": f"http://127.0.0.1:{lines['vault'].port}"}
        setting = new_setting(
            folder,
            keys=keys,
            state=valkey_state(lines["valkey"].port, folder),
            tokens=SHORT_LEEWAY,
            workers={"grpc": WORKERS, "http": WORKERS},
            **sections,
        )
        broker = RunningBroker(setting)
        closing.callback(broker.close)
        broker.wait_until_ready(60)
        yield Stand(broker, vault, valkey, lines)


def embedded(folder: Path) -> Setting:
    """A broker with all that it needs on its own disk, and several workers of each face."""
    setting = new_setting(folder)
    return setting.with_document(workers={"grpc": WORKERS, "http": WORKERS})
