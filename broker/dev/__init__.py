"""``broker dev``: a whole broker for one machine, with a story that shows what it is for."""

from broker.dev.run import run_dev

__all__ = ["run_dev"]
