"""The text form of protocol buffers."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfctl.gpu import textproto
from cfctl.gpu.textproto import Message, TextProtoError, parse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", {}),
        ("a: 1 b: TYPE_X", {"a": ["1"], "b": ["TYPE_X"]}),
        ("a: 1, b: -2.5e3; c: true # no\n", {"a": ["1"], "b": ["-2.5e3"], "c": ["true"]}),
        ("a: \"x\" a: 'y'", {"a": ["x", "y"]}),
        ('a: "one "\n  "two"', {"a": ["one two"]}),
        (r'a: "\"\\\n\x41\101"', {"a": ['"\\\nAA']}),
        ("a { b: 1 } a: { b: 2 } a < b: 3 >", {"a": [{"b": ["1"]}, {"b": ["2"]}, {"b": ["3"]}]}),
        ("a: [1, 2] b: [X] c: []", {"a": ["1", "2"], "b": ["X"], "c": []}),
        ("a: [{b: 1}, {b: 2}]", {"a": [{"b": ["1"]}, {"b": ["2"]}]}),
        ("[google.ext] { a: 1 }", {"[google.ext]": [{"a": ["1"]}]}),
    ],
)
def test_parse(text: str, message: Message) -> None:
    assert parse(text) == message


@pytest.mark.parametrize(
    "text",
    ["a", "a 1", "a:", "a {", "}", "a: }", "a: [1", 'a: "x', "a: {b: 1>", "=", "a {" * 200 + "}" * 200, "\x00"],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(TextProtoError, match=r"^line \d+: "):
        parse(text)


def test_reading_takes_nothing_for_granted() -> None:
    message = parse('a: 1 a { b: true } c: "t"')
    assert textproto.text(message, "a") == "1"
    assert textproto.text(message, "z") == ""
    assert textproto.message(message, "a") == {"b": ["true"]}
    assert textproto.message(message, "c") is None
    assert textproto.truth(message, "c")


VALUE = st.text(max_size=8)


@given(
    st.recursive(
        st.dictionaries(st.sampled_from("abc"), st.lists(VALUE, min_size=1, max_size=2), max_size=3),
        lambda inner: st.dictionaries(st.sampled_from("abc"), st.lists(inner, min_size=1, max_size=2)),
        max_leaves=8,
    )
)
def test_what_was_written_is_read(message: Message) -> None:
    assert parse(written(message)) == message


def written(message: Message) -> str:
    return "".join(
        f"{name} {{ {written(value)} }} " if isinstance(value, dict) else f'{name}: "{escaped(value)}" '
        for name, values in message.items()
        for value in values
    )


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@given(st.text(max_size=100) | st.lists(st.sampled_from([*"{}[]<>:,\"'\\#", "a", "b: 1", "\n"])).map("".join))
def test_anything_else_is_the_one_error(text: str) -> None:
    with contextlib.suppress(TextProtoError):
        assert isinstance(parse(text), dict)
