"""Keys by their place (W3C UI Events, KeyboardEvent.code) as QEMU calls them (qapi/ui.json, QKeyCode)."""

from __future__ import annotations

from string import ascii_lowercase, digits

_WRITING = {
    "Backquote": "grave_accent",
    "Backslash": "backslash",
    "BracketLeft": "bracket_left",
    "BracketRight": "bracket_right",
    "Comma": "comma",
    "Equal": "equal",
    "IntlBackslash": "less",
    "IntlRo": "ro",
    "IntlYen": "yen",
    "Minus": "minus",
    "Period": "dot",
    "Quote": "apostrophe",
    "Semicolon": "semicolon",
    "Slash": "slash",
    "Space": "spc",
}

_WORKING = {
    "AltLeft": "alt",
    "AltRight": "alt_r",
    "Backspace": "backspace",
    "CapsLock": "caps_lock",
    # Between the right Alt and Control; what QEMU calls menu is a phone's.
    "ContextMenu": "compose",
    "ControlLeft": "ctrl",
    "ControlRight": "ctrl_r",
    "Enter": "ret",
    "Escape": "esc",
    "MetaLeft": "meta_l",
    "MetaRight": "meta_r",
    "NumLock": "num_lock",
    "Pause": "pause",
    "PrintScreen": "print",
    "ScrollLock": "scroll_lock",
    "ShiftLeft": "shift",
    "ShiftRight": "shift_r",
    "Tab": "tab",
}

_MOVING = {
    "ArrowDown": "down",
    "ArrowLeft": "left",
    "ArrowRight": "right",
    "ArrowUp": "up",
    "Delete": "delete",
    "End": "end",
    "Home": "home",
    "Insert": "insert",
    "PageDown": "pgdn",
    "PageUp": "pgup",
}

_NUMPAD = {
    "NumpadAdd": "kp_add",
    "NumpadComma": "kp_comma",
    "NumpadDecimal": "kp_decimal",
    "NumpadDivide": "kp_divide",
    "NumpadEnter": "kp_enter",
    "NumpadEqual": "kp_equals",
    "NumpadMultiply": "kp_multiply",
    "NumpadSubtract": "kp_subtract",
}

_OTHERS = {
    "AudioVolumeDown": "volumedown",
    "AudioVolumeMute": "audiomute",
    "AudioVolumeUp": "volumeup",
    "BrowserBack": "ac_back",
    "BrowserForward": "ac_forward",
    "BrowserHome": "ac_home",
    "BrowserRefresh": "ac_refresh",
    "Convert": "henkan",
    "Copy": "copy",
    "Cut": "cut",
    "Find": "find",
    "Help": "help",
    "KanaMode": "katakanahiragana",
    "Lang1": "lang1",
    "Lang2": "lang2",
    "MediaPlayPause": "audioplay",
    "MediaStop": "audiostop",
    "MediaTrackNext": "audionext",
    "MediaTrackPrevious": "audioprev",
    "NonConvert": "muhenkan",
    "Open": "open",
    "Paste": "paste",
    "Power": "power",
    "Sleep": "sleep",
    "Undo": "undo",
    "WakeUp": "wake",
}

CODES = {
    **{f"Key{letter.upper()}": letter for letter in ascii_lowercase},
    **{f"Digit{digit}": digit for digit in digits},
    **{f"Numpad{digit}": f"kp_{digit}" for digit in digits},
    **{f"F{number}": f"f{number}" for number in range(1, 13)},
    **_WRITING,
    **_WORKING,
    **_MOVING,
    **_NUMPAD,
    **_OTHERS,
}

#: What the buttons beside the picture press (the commands of ``device-control`` that are keys).
BUTTONS = {
    "power": "power",
    "back": "ac_back",
    "home": "ac_home",
    "menu": "menu",
    "volumedown": "volumedown",
    "volumeup": "volumeup",
}
