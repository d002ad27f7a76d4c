"""Runs the broker of another checkout: its folder is the first argument."""

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv.pop(1))
    # It must come from that folder.
    from broker.cli import main

    main()
