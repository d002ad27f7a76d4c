"""What an exchange costs the server, beside the cryptography that it cannot do without."""
