"""Settings under which keys are rotated within seconds, and what ``broker keys`` says of them."""

import json
import subprocess
from typing import Any, Final

from tests.e2e.running import PYTHON, RunningBroker, environment
from tests.e2e.setting import Document

SHORT: Final[Document] = {"poll": "1s", "clock_difference": "0s", "keep_published": "15s"}
TOKENS: Final = {
    "jwks_max_age": "1s",
    "lifetime": "10s",
    "machine_lifetime": "10s",
    "id_jag_lifetime": "10s",
    "leeway": "1s",
}


def keys(broker: RunningBroker, *arguments: str) -> Any:
    """What ``broker keys`` prints for programs."""
    command = [PYTHON, "-m", "broker", "keys", *arguments, "--output", "json"]
    done = subprocess.run(
        [*command, "--config", str(broker.setting.file)],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
