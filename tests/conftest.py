"""Fixtures that any test may use."""

pytest_plugins = ["tests.openbao", "tests.stagehands", "tests.valkey"]
