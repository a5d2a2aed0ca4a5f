"""What is pressed on an American keyboard to type a text, as QEMU calls its keys (qapi/ui.json, QKeyCode)."""

from __future__ import annotations

_PLAIN = {
    " ": "spc",
    "\n": "ret",
    "\t": "tab",
    "-": "minus",
    "=": "equal",
    "[": "bracket_left",
    "]": "bracket_right",
    "\\": "backslash",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave_accent",
    ",": "comma",
    ".": "dot",
    "/": "slash",
}
#: What shift makes of a key, by the key's own sign.
_SHIFTED = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True))


def strokes(text: str) -> list[tuple[str, ...]]:
    """Return the keys of each sign, in the order in which they are pressed.

    :raises KeyError: for a sign that is not on the keyboard.
    """
    return [_keys(sign) for sign in text]


def _keys(sign: str) -> tuple[str, ...]:
    if sign.isascii() and (sign.islower() or sign.isdigit()):
        return (sign,)
    if sign.isascii() and sign.isupper():
        return ("shift", sign.lower())
    if sign in _PLAIN:
        return (_PLAIN[sign],)
    plain = _SHIFTED[sign]
    return ("shift", _PLAIN.get(plain, plain))
