"""Who is asking: client authentication by secret or by signed assertion, and proof of a key."""

from broker.client_auth.authenticator import ClientAuthenticator
from broker.client_auth.dpop import ProofVerifier
from broker.client_auth.secrets import SecretVerifier

__all__ = ["ClientAuthenticator", "ProofVerifier", "SecretVerifier"]
