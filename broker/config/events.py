"""The events of a YAML text: by a quick parser where it reads as the exact one does, and by that one."""

import re
from collections.abc import Iterator
from typing import Final

import yaml
from ruamel.yaml import YAML
from ruamel.yaml import events as exact
from yaml import events as quick

Event = exact.Event | quick.Event
NodeEvent: Final = (exact.NodeEvent, quick.NodeEvent)
AliasEvent: Final = (exact.AliasEvent, quick.AliasEvent)
ScalarEvent: Final = (exact.ScalarEvent, quick.ScalarEvent)
MappingStartEvent: Final = (exact.MappingStartEvent, quick.MappingStartEvent)
CollectionStartEvent: Final = (exact.CollectionStartEvent, quick.CollectionStartEvent)
CollectionEndEvent: Final = (exact.CollectionEndEvent, quick.CollectionEndEvent)
DocumentStartEvent: Final = (exact.DocumentStartEvent, quick.DocumentStartEvent)

QuickError = yaml.YAMLError

# What the two parsers could see differently, or what costs the one in C more than it should: line breaks
# and spaces of other kinds, tags, anchors, comments right at what begins a block, directives, and ends of
# documents.
_UNUSUAL: Final = re.compile(
    r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
    r"|[!&]|[|>][0-9+-]{0,2}#|^(?:%|\.\.\.)",
    re.MULTILINE,
)


def quick_events(text: str) -> Iterator[Event] | None:
    """
    The events by the parser in C, a seventh of the work, if the text is one for it.

    It knows YAML 1.1 and refuses some of what is YAML 1.2, so only what it accepts counts. Raises
    ``QuickError`` while it is iterated over. There are none where PyYAML was built without libyaml.
    """
    if not yaml.__with_libyaml__ or _UNUSUAL.search(text):
        return None
    return _parsed_in_c(text)


def exact_events(text: str) -> Iterator[Event]:
    """The events by the parser in Python (YAML 1.2), whose refusals name the place."""
    found: Iterator[Event] = iter(YAML(typ="safe", pure=True).parse(text))
    return found


def _parsed_in_c(text: str) -> Iterator[Event]:
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, quick.ScalarEvent) and not event.value and event.implicit[0]:
            raise QuickError("What is not there stands elsewhere than by the exact parser.")
        yield event
