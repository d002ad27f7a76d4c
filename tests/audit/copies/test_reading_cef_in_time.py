"""No line of a copy takes longer than its length, whoever wrote it."""

import time

import pytest

from broker.audit.copies.reading import LONGEST_LINE, NoRecord, read_line


@pytest.mark.parametrize("end", [b"", b"\t", b"\x0b", b"\\"])
@pytest.mark.parametrize("key", [b"|cn1=", b"|deviceExternalId=", b"|flexString2="])
def test_a_line_that_looks_like_many_members_is_read_at_once(key: bytes, end: bytes) -> None:
    head = b"CEF:0|delegation-broker|delegation-broker|"
    line = head + key * ((LONGEST_LINE - 99) // len(key)) + end
    begun = time.process_time()

    assert isinstance(read_line(line), NoRecord)
    assert time.process_time() - begun < 2
