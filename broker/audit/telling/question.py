"""What was asked of the record itself, and which part of it a record is about, in a few words."""

from typing import Final

from broker.audit.record import Record

_MOST_PEOPLE: Final = 6


def question(record: Record) -> str:
    """
    What an auditor asked for and about whom, or the period whose people were forgotten; empty for the rest.

    Names are as in the record, and still to be made harmless.
    """
    if record.about:
        return f"people of {record.about}"
    people = record.people_asked or []
    told = ", ".join(people[:_MOST_PEOPLE])
    if len(people) > _MOST_PEOPLE:
        told += f" and {len(people) - _MOST_PEOPLE} more"
    if not told:
        return record.asked or ""
    if record.asked == "person":
        return f"page of {told}"
    return f"{record.asked or ''} about {told}".lstrip()
