"""The base of everything that may stand in ``broker.yaml``."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping of settings: unknown names are errors, and nothing is converted on a guess."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)
