"""Lets ``python -m broker`` be the ``broker`` command."""

from broker.cli import main

main()
