"""
Makes the key of the nightly job: a private half for the agent, a public half for the broker.

    python examples/agents/make_key.py

Both are written to .broker-examples/, the private one for its owner alone.
"""

import json
import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm


def main(folder: Path) -> None:
    """Write both halves to the folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    place = folder / "agent-nightly.pem"
    place.unlink(missing_ok=True)
    with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private)
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    jwk = {**public, "kid": "agent-nightly-1", "alg": "ES256", "use": "sig"}
    (folder / "agent-nightly.jwks.json").write_text(json.dumps({"keys": [jwk]}))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".broker-examples"))
