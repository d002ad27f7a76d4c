"""A token exchange and delegation broker for the Model Context Protocol."""

__version__ = "0.1.0"
