"""Configuration: one YAML file and the environment become frozen settings, or a list of problems."""

from broker.config.documents import json_schema, settings_page
from broker.config.loading import load_settings
from broker.config.problems import ConfigError, Problem
from broker.config.settings import Settings

__all__ = [
    "ConfigError",
    "Problem",
    "Settings",
    "json_schema",
    "load_settings",
    "settings_page",
]
