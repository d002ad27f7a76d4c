"""A real time-stamping authority: OpenSSL behind a small HTTP server."""

import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

_CONFIG: Final = """
[tsa]
serial = {folder}/serial
crypto_device = builtin
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ordering = no
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[stamping]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
"""


class TimeStampAuthority:
    """
    Stamps what it is sent, at ``url``. ``roots`` is the file that its certificates lead to.

    ``answer`` may be set to bytes that it gives instead.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.roots = folder / "ca.pem"
        self.answer: bytes | None = None
        self.asked = 0
        (folder / "tsa.cnf").write_text(_CONFIG.format(folder=folder))
        (folder / "serial").write_text("01\n")
        self._make_certificates()
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/stamp"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _make_certificates(self) -> None:
        new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
        config = ("-config", "tsa.cnf")
        (self._folder / "tsa.cnf").write_text(
            "[req]\ndistinguished_name = none\n[none]\n" + (self._folder / "tsa.cnf").read_text()
        )
        self._openssl(
            *new, "-x509", "-days", "2", "-subj", "/CN=Root", "-keyout", "ca.key",
            "-out", "ca.pem", "-extensions", "authority", *config,
        )  # fmt: skip
        self._openssl(*new, "-subj", "/CN=Stamps", "-keyout", "tsa.key", "-out", "tsa.csr", *config)
        self._openssl(
            "x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
            "-CAcreateserial", "-out", "tsa.pem", "-extfile", "tsa.cnf", "-extensions", "stamping",
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)

    def reply(self, query: bytes) -> bytes:
        """The answer of the authority to a query."""
        self.asked += 1
        if self.answer is not None:
            return self.answer
        (self._folder / "query").write_bytes(query)
        self._openssl(
            "ts", "-reply", "-queryfile", "query", "-signer", "tsa.pem", "-inkey", "tsa.key",
            "-config", "tsa.cnf", "-section", "tsa", "-out", "reply",
        )  # fmt: skip
        return (self._folder / "reply").read_bytes()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/timestamp-query"
                reply = authority.reply(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        return Handler
