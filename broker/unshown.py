"""Values that every request makes anew, with fields that no repr shows since they are secret."""

from typing import Any, ClassVar

import msgspec


class Unshown(msgspec.Struct, frozen=True):
    """A frozen value whose repr leaves out the fields that are named in ``unshown``."""

    unshown: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({values})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        shown = (name for name in self.__struct_fields__ if name not in self.unshown)
        return [(name, getattr(self, name)) for name in shown]
