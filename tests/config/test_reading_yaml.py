"""The file itself: what is no sound YAML, and what is too much of it."""

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import ConfigError, document, load_settings
from broker.config.document import Node, read_document, read_scalar
from broker.config.events import quick_events

Refuse = Callable[..., list[str]]

ISSUER = "issuer: http://127.0.0.1:8080\n"


@pytest.mark.requirement("R-28")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "broker.yaml: the file is empty"),
        (b" \n\n", "broker.yaml: the file is empty"),
        (b"\xef\xbb\xbf" + ISSUER.encode(), "broker.yaml: begins with a byte order mark"),
        (ISSUER.encode("utf-16"), "broker.yaml: begins with a byte order mark"),
        (ISSUER.encode() + b"x: \xff\n", "broker.yaml:2:4: is not UTF-8"),
        (b"issuer: [half", "broker.yaml:1:14: is not YAML: expected ',' or ']'"),
        (b"issuer: 'half", "broker.yaml:1:14: is not YAML: found unexpected end of stream"),
        (b"a: b: c\n", "broker.yaml:1:5: is not YAML: mapping values are not allowed"),
        (b"a:\n\t- x\n", "broker.yaml:2:1: is not YAML: found character '\\t'"),
        (b"a: \x01\n", "broker.yaml:1:4: a character that YAML does not allow"),
        (b"- a\n- b\n", "broker.yaml:1:1: must be a mapping of settings"),
        (b"just words\n", "broker.yaml:1:1: must be a mapping of settings"),
        (b"# nothing but a comment\n", "broker.yaml:1:1: issuer: is required"),
        (
            ISSUER.encode() + b"---\n" + ISSUER.encode(),
            "broker.yaml:2:1: only one document may stand",
        ),
        (
            ISSUER.encode() * 2,
            "broker.yaml:2:1: 'issuer' is given twice; it first stands on line 1",
        ),
        (b"log: {level: info, level: debug}\n", "broker.yaml:1:20: 'level' is given twice"),
        (b"log: !!python/object:os.system {}\n", "broker.yaml:1:6: tags are not accepted"),
        (b"issuer: !!str x\n", "broker.yaml:1:9: tags are not accepted"),
        (b"a: &x {}\nlog:\n  <<: *x\n", "broker.yaml:3:3: merge keys are not accepted"),
        (b"? [a, b]\n: c\n", "broker.yaml:1:3: the name of a setting must be plain text"),
        (b"a: *nowhere\n", "broker.yaml:1:4: the alias names nothing before it"),
        (b"a: &a [*a]\n", "broker.yaml:1:8: the alias names nothing before it"),
        (b"a: " + b"[" * 17 + b"]" * 17, "broker.yaml:1:19: is nested over 16 levels deep"),
        (b"a: " + b"[" * 100_000, "broker.yaml:1:19: is nested over 16 levels deep"),
        (b"a: " + b"{a: " * 100_000, "broker.yaml:1:64: is nested over 16 levels deep"),
        (b"#" * 1_048_577, "broker.yaml: is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_sound_yaml_is_refused(
    refuse: Refuse, content: bytes, problem: str
) -> None:
    assert refuse(content)[0].startswith(problem)


@pytest.mark.requirement("R-28")
def test_aliases_that_multiply_are_refused_before_they_cost_anything() -> None:
    """Nine aliases of nine aliases, eight times over, would be 43 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8)]
    tracemalloc.start()

    with pytest.raises(ConfigError, match="holds more than 200000 values"):
        read_document("\n".join(lines), "broker.yaml")

    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.requirement("R-28")
def test_a_file_that_is_missing_or_no_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    for path in (tmp_path / "missing.yaml", tmp_path, pipe, tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError) as refused:
            load_settings(path, {})
        assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.requirement("CFG-04")
def test_a_file_that_everybody_can_write_is_refused(refuse: Refuse, tmp_path: Path) -> None:
    path = tmp_path / "broker.yaml"
    path.touch()
    path.chmod(0o666)

    assert refuse(ISSUER) == [
        "broker.yaml: everybody can write to it; take that right away (chmod o-w)"
    ]


def test_all_mistakes_of_form_are_told_at_once(refuse: Refuse) -> None:
    assert [one.split(":")[1] for one in refuse("a: !t 1\na: 2\n? [x]\n: 3\n")] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("tRUE", "tRUE"),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2027-01-01", "2027-01-01"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_a_word_means_only_what_it_plainly_says(text: str, value: object) -> None:
    """No country code becomes false, no version a date, no long number a burden."""
    found = read_scalar(text)

    assert found == value
    assert type(found) is type(value)


@given(st.text(max_size=80))
def test_no_text_makes_the_reader_fail_otherwise_than_by_saying_so(text: str) -> None:
    try:
        root = read_document(text, "broker.yaml")
    except ConfigError:
        return

    assert isinstance(root.plain(), dict)


_PIECES = st.sampled_from(
    [
        *(
            "a",
            "b c",
            "12",
            "~",
            "'q'",
            '"\\u00e9"',
            "http://x.example:80/?q",
            "a?b",
            "x#y",
            "#c",
            "|2\n",
        ),
        *(
            "- ",
            "-",
            "? ",
            ": ",
            ":",
            ", ",
            "[",
            "]",
            "{",
            "}",
            "|\n",
            ">-\n",
            "\n",
            "\n  ",
            "\n    ",
        ),
        *(
            "---\n",
            "...\n",
            "<<: ",
            "*x ",
            "&x ",
            "!t ",
            "%x",
            "\u00e9",
            "\u2028",
            "\t",
            "'a\n b'",
            "key: ",
        ),
        *(
            "[1, 2]",
            "{x: y, z: [http://x]}",
            "c: d\n",
            "  e: f\n",
            "  - g\n",
            '"k":v',
            "'it''s'",
            "\r\n",
        ),
    ]
)


def _by_the_exact_parser(text: str) -> Node | str:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(document, "quick_events", lambda _: None)
        return _read(text)


def _read(text: str) -> Node | str:
    try:
        return read_document(text, "broker.yaml")
    except ConfigError as refused:
        return str(refused)


@given(st.lists(_PIECES, max_size=9).map("".join))
def test_the_quick_parser_changes_nothing_of_what_is_read_or_told(
    text: str,
) -> None:
    assert _read(text) == _by_the_exact_parser(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: !t 1\n",
        "a: &x 1\n",
        "%TAG !a! x\n---\na: 1\n",
        "a: 1\n...\n",
        "a:\t1\n",
        "a: b\u2028c\n",
        "a: |#c\n  x\nb: 1\n",
        "a: >2-#c\n  x\nb: 1\n",
    ],
)
def test_what_parsers_could_see_differently_is_left_to_the_exact_one(text: str) -> None:
    assert quick_events(text) is None


def test_a_plain_file_is_read_by_the_quick_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file of ten thousand clients takes seven times as long."""
    monkeypatch.setattr(document, "exact_events", None)

    root = read_document("listen: {http: 127.0.0.1:80}\nissuer: https://é.example:80/\n", "x")

    assert root.plain() == {"listen": {"http": "127.0.0.1:80"}, "issuer": "https://é.example:80/"}
