"""Who is asking: client authentication by secret or by signed assertion."""

from broker.client_auth.authenticator import ClientAuthenticator
from broker.client_auth.secrets import SecretVerifier

__all__ = ["ClientAuthenticator", "SecretVerifier"]
