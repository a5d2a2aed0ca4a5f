"""Reads protocol buffers in text form (protobuf.dev, "Text Format Language Specification"), without their schema.

That is how upstream's graphics_detector answers, and how newer guests describe themselves. Field names are taken as
they come, so what a newer version adds does no harm.
"""

from __future__ import annotations

import re
from typing import TypeAlias

#: A field's values in the order they were written: text for a scalar, a message for a message.
Message: TypeAlias = "dict[str, list[Value]]"
Value: TypeAlias = "str | Message"

#: Deeper than any message that is read here; Python's own stack ends later.
_DEPTH = 50

_TOKEN = re.compile(
    r"""
      (?P<skip>   [\s,;]+ | \#[^\n]* )
    | (?P<name>   \[[\w./\s-]+\] )                              # an extension: [package.field]
    | (?P<word>   -?\s*[\w.][\w.+-]* )                          # a name, a number, an enum value
    | (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
    | (?P<mark>   [:{}<>\[\]] )
    """,
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|(.))", re.DOTALL)
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CLOSING = {"{": "}", "<": ">"}


class TextProtoError(ValueError):
    """The text is no message in text form; the error names the line."""


def parse(text: str) -> Message:
    """Return the message.

    :raises TextProtoError: if there is none.
    """
    return _message(_Tokens(text), None, 0)


class _Tokens:
    """The words of the text, with one to look ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.kind, self.word = "", ""
        self.next()

    def next(self) -> str:
        """Go on and return the word that was current."""
        word = self.word
        while True:
            if self._position >= len(self._text):
                self.kind, self.word = "end", ""
                return word
            match = _TOKEN.match(self._text, self._position)
            if match is None:
                raise self.error("what is this?")
            self._position = match.end()
            if match.lastgroup != "skip":
                self.kind, self.word = match.lastgroup or "", match[0]
                return word

    def error(self, what: str) -> TextProtoError:
        line = self._text.count("\n", 0, self._position) + 1
        near = self._text[max(0, self._position - 20) : self._position + 20].strip()
        return TextProtoError(f"line {line}: {what} near {near!r}")


def _message(tokens: _Tokens, closing: str | None, depth: int) -> Message:
    if depth > _DEPTH:
        raise tokens.error("nested too deeply")
    message: Message = {}
    while tokens.word != closing or tokens.kind != "mark":
        if tokens.kind == "end" and closing is None:
            return message
        if tokens.kind not in ("word", "name"):
            raise tokens.error("a field's name is missing")
        values = message.setdefault(tokens.next(), [])
        colon = tokens.kind == "mark" and tokens.word == ":"
        if colon:
            tokens.next()
        elif tokens.word not in _CLOSING:
            raise tokens.error("a colon is missing")
        values += _values(tokens, depth)
    tokens.next()
    return message


def _values(tokens: _Tokens, depth: int) -> list[Value]:
    """Return a field's value; several if they are in brackets."""
    if tokens.kind == "name":
        # A list of one plain word reads like an extension's name.
        return list(tokens.next()[1:-1].split())
    if tokens.word != "[" or tokens.kind != "mark":
        return [_value(tokens, depth)]
    tokens.next()
    values: list[Value] = []
    while tokens.word != "]" or tokens.kind != "mark":
        values.append(_value(tokens, depth))
    tokens.next()
    return values


def _value(tokens: _Tokens, depth: int) -> Value:
    if tokens.kind == "mark" and tokens.word in _CLOSING:
        return _message(tokens, _CLOSING[tokens.next()], depth + 1)
    if tokens.kind == "word":
        return tokens.next()
    if tokens.kind == "string":
        parts = []
        # Strings that follow each other are one.
        while tokens.kind == "string":
            parts.append(_ESCAPE.sub(_unescaped, tokens.next()[1:-1]))
        return "".join(parts)
    raise tokens.error("a value is missing")


def _unescaped(match: re.Match[str]) -> str:
    hexadecimal, octal, other = match.groups()
    if hexadecimal:
        return chr(int(hexadecimal, 16))
    if octal:
        return chr(int(octal, 8))
    return _CONTROL.get(other, other)


# -- reading a message that came from somebody else: nothing is taken for granted ---------------------------------


def text(message: Message, name: str) -> str:
    """Return a scalar, the last one as the specification wants; empty where there is none."""
    found = [value for value in message.get(name, []) if isinstance(value, str)]
    return found[-1] if found else ""


def truth(message: Message, name: str) -> bool:
    """Tell whether a boolean field is set."""
    return text(message, name).lower() in ("true", "t", "1")


def messages(message: Message, name: str) -> list[Message]:
    """Return all messages of a field."""
    return [value for value in message.get(name, []) if isinstance(value, dict)]


def message(parent: Message, name: str) -> Message | None:
    """Return the message of a field, or None where there is none."""
    found = messages(parent, name)
    return found[-1] if found else None
