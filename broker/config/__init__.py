"""Configuration: one YAML file and the environment become frozen settings, or a list of problems."""

from broker.config.loading import load_settings
from broker.config.problems import ConfigError, Problem
from broker.config.settings import Settings

__all__ = [
    "ConfigError",
    "Problem",
    "Settings",
    "load_settings",
]
