// The console tab: a device's serial line over a WebSocket, and a terminal to sit at.

import { Vt } from "./vt.js";

const AGAIN_MS = 2000;

const KEYS = {
  Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B",
  ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D", Home: "\x1b[H", End: "\x1b[F", PageUp: "\x1b[5~", PageDown: "\x1b[6~",
  Insert: "\x1b[2~", Delete: "\x1b[3~",
};

// Arrows as programs with a whole screen may have asked for them (DECCKM).
const arrows = (bytes, application) => (application ? bytes.replace(/^\x1b\[(?=[A-DFH]$)/, "\x1bO") : bytes);

// What a key sends to a serial line; null for one that is left to the browser.
export function bytesOf(event, application = false) {
  if (event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey) {
    if (/^[a-z]$/.test(event.key) && event.key !== "v") return String.fromCharCode(event.key.charCodeAt(0) - 96);
    const other = { "[": "\x1b", "\\": "\x1c", "]": "\x1d", " ": "\0" }[event.key];
    if (other) return other;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  return event.key in KEYS ? arrows(KEYS[event.key], application) : null;
}

// Sits at the console of a device, in the part of the page that is given; returns how to leave it.
export function sit(name, panel) {
  const part = (id) => panel.querySelector(`#${id}`);
  const term = part("term");
  const lines = part("term-lines");
  const input = part("term-input");
  const note = part("term-note");
  const encoder = new TextEncoder();
  let decoder = new TextDecoder();
  let socket = null;
  let timer = 0;
  let frame = 0;
  let over = false;
  let cursor = null;

  const send = (text) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(encoder.encode(text));
  };
  const vt = new Vt({ reply: send });
  const nodes = new WeakMap();

  // -- what it shows --

  function drawn(line) {
    const node = nodes.get(line) ?? document.createElement("div");
    nodes.set(line, node);
    const spans = [];
    let text = "";
    let style = "";
    const flush = () => {
      if (!text) return;
      const span = document.createElement("span");
      span.className = style;
      span.textContent = text;
      spans.push(span);
      text = "";
    };
    const at = line === vt.line && vt.cursor ? Math.min(vt.x, vt.cols - 1) : -1;
    for (let x = 0; x < Math.max(line.cells.length, at + 1); x += 1) {
      const cell = line.cells[x] ?? { sign: " ", style: "" };
      const wanted = x === at ? `${cell.style} cursor` : cell.style;
      if (wanted !== style) {
        flush();
        style = wanted;
      }
      text += cell.sign;
    }
    flush();
    node.replaceChildren(...spans);
    return node;
  }

  function draw() {
    frame = 0;
    const below = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    if (cursor) vt.dirty.add(cursor);
    cursor = vt.line;
    vt.dirty.add(cursor);
    const there = new Set(vt.lines);
    for (const line of vt.dirty) if (there.has(line)) drawn(line);
    vt.dirty.clear();
    // Those that are gone go first: what is left is in its place already, but for a few.
    const wanted = new Set(vt.lines.map((line) => nodes.get(line) ?? drawn(line)));
    for (const node of [...lines.children]) if (!wanted.has(node)) node.remove();
    let next = lines.firstChild;
    for (const node of wanted) {
      if (node === next) next = next.nextSibling;
      else lines.insertBefore(node, next);
    }
    if (below) lines.scrollTop = lines.scrollHeight;
  }

  function feed(text) {
    vt.feed(text);
    if (!frame) frame = requestAnimationFrame(draw);
  }

  function fit() {
    const one = part("term-one").getBoundingClientRect();
    if (!one.width || !lines.clientHeight) return;
    const rows = Math.max(8, Math.floor(lines.clientHeight / one.height));
    vt.resize(Math.max(80, Math.min(200, Math.floor((lines.clientWidth - 24) / (one.width / 10)))), rows);
    // What is left lies below the last row: above the first one, part of what was scrolled away would be seen.
    lines.style.paddingBottom = `${Math.max(0, lines.clientHeight - rows * one.height)}px`;
    feed("");
  }
  const watcher = new ResizeObserver(fit);
  watcher.observe(lines);

  // -- the line --

  function tell(text, state) {
    note.textContent = text;
    term.dataset.state = state;
  }

  function begin() {
    tell("Connecting…", "connecting");
    const address = new URL(`/api/devices/${encodeURIComponent(name)}/console`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const mine = socket = new WebSocket(address);
    let why = "The connection to the relay is gone.";
    let again = true;
    decoder = new TextDecoder();
    mine.binaryType = "arraybuffer";
    mine.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        feed(decoder.decode(data, { stream: true }));
        return;
      }
      const word = JSON.parse(data);
      if (word.opened) tell(`The serial console of ${word.opened}. Press Enter for a prompt.`, "open");
      else if (word.error) {
        why = [word.error.brief, word.error.details].filter(Boolean).join(". ");
        again = false;
      } else if (word.closed) why = word.closed;
    };
    mine.onclose = () => {
      if (over || mine !== socket) return;
      tell(why, "closed");
      part("term-again").hidden = false;
      if (again) timer = setTimeout(restart, AGAIN_MS);
    };
  }

  function restart() {
    clearTimeout(timer);
    part("term-again").hidden = true;
    begin();
  }
  part("term-again").addEventListener("click", () => {
    restart();
    input.focus();
  });

  // -- who types --

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape" && event.shiftKey) {
      document.getElementById("tab-console").focus();
      event.preventDefault();
      return;
    }
    if (event.key === "Tab" && event.shiftKey) return;
    if (event.ctrlKey && event.key === "c" && !getSelection().isCollapsed) return;
    const bytes = bytesOf(event, vt.application);
    if (bytes === null) return;
    event.preventDefault();
    send(bytes);
  });
  input.addEventListener("input", (event) => {
    if (event.isComposing) return;
    send(input.value.replaceAll("\r\n", "\r").replaceAll("\n", "\r"));
    input.value = "";
  });
  input.addEventListener("compositionend", () => {
    send(input.value);
    input.value = "";
  });
  lines.addEventListener("click", () => {
    if (getSelection().isCollapsed) input.focus({ preventScroll: true });
  });
  for (const button of panel.querySelectorAll("[data-send]")) {
    button.addEventListener("click", () => {
      send(arrows(JSON.parse(`"${button.dataset.send}"`), vt.application));
      input.focus({ preventScroll: true });
    });
  }

  begin();
  fit();
  return {
    focus: () => input.focus({ preventScroll: true }),
    end() {
      over = true;
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      watcher.disconnect();
      socket?.close();
    },
  };
}
