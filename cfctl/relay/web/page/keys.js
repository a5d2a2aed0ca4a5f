// Text as keys of a US keyboard: what a device's keyboard is, whatever the viewer's is.

const PLAIN = {
  " ": "Space", "\n": "Enter", "\t": "Tab", "-": "Minus", "=": "Equal", "[": "BracketLeft", "]": "BracketRight",
  "\\": "Backslash", ";": "Semicolon", "'": "Quote", "`": "Backquote", ",": "Comma", ".": "Period", "/": "Slash",
};
const SHIFTED = {
  "_": "Minus", "+": "Equal", "{": "BracketLeft", "}": "BracketRight", "|": "Backslash", ":": "Semicolon",
  "\"": "Quote", "~": "Backquote", "<": "Comma", ">": "Period", "?": "Slash", "!": "Digit1", "@": "Digit2",
  "#": "Digit3", "$": "Digit4", "%": "Digit5", "^": "Digit6", "&": "Digit7", "*": "Digit8", "(": "Digit9", ")": "Digit0",
};

// Returns the key of a character and whether Shift is held, or null for one that no such keyboard has.
export function keyOf(character) {
  if (/^[a-z]$/.test(character)) return { code: "Key" + character.toUpperCase(), shift: false };
  if (/^[A-Z]$/.test(character)) return { code: "Key" + character, shift: true };
  if (/^[0-9]$/.test(character)) return { code: "Digit" + character, shift: false };
  if (character in PLAIN) return { code: PLAIN[character], shift: false };
  if (character in SHIFTED) return { code: SHIFTED[character], shift: true };
  return null;
}

// Types a text by and by, until a key is not taken (`press` returns false). Resolves to the numbers of characters that
// have no key, and of those that were not typed any more.
export async function typeText(text, press) {
  const characters = [...text.replaceAll("\r\n", "\n").replaceAll("\r", "\n")];
  let lacking = 0;
  for (const [at, character] of characters.entries()) {
    const key = keyOf(character);
    if (!key) {
      lacking += 1;
      continue;
    }
    if (!press(key.shift ? "ShiftLeft" : key.code, true)) return { lacking, untyped: characters.length - at };
    if (key.shift) press(key.code, true);
    press(key.code, false);
    if (key.shift) press("ShiftLeft", false);
    // A guest reads its keyboard now and then; its queue is short.
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  return { lacking, untyped: 0 };
}
