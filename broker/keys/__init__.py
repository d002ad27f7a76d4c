"""Our own signing keys: embedded for one machine, or kept by Vault, which signs."""
