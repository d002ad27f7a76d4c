"""Lets ``python -m broker.verify_server`` be the ``broker-verify`` command."""

import sys

from broker.verify_server.command import main

sys.exit(main())
