// A small terminal, much like a VT102: what a serial console writes, as lines of cells.

import { Rows } from "./rows.js";

const TAB = 8;
const SCROLLBACK = 2000;

// Keys of a style: "f1" and "b4" are colours of the sixteen, the rest are words.
const WORDS = { 1: "bold", 2: "dim", 4: "under", 7: "inverse" };
const ENDS = { 22: ["bold", "dim"], 24: ["under"], 27: ["inverse"] };

// Private modes (h and l) that show the alternate screen.
const ALTERNATE = [47, 1047, 1049];

export class Vt {
  #text = "";
  #style = {};
  #saved = { x: 0, y: 0, style: {} };
  #rows;
  // The first and last row of what scrolls.
  #first = 0;
  #last = 0;
  #inserts = false;

  // `reply` gets what the guest asked the terminal for.
  constructor({ cols = 80, rows = 24, scrollback = SCROLLBACK, reply = () => {} } = {}) {
    this.reply = reply;
    this.#rows = new Rows(scrollback);
    this.x = this.y = 0;
    // Whether the cursor is seen, and whether arrows are sent as programs with a whole screen want them.
    this.cursor = true;
    this.application = false;
    this.resize(cols, rows);
  }

  resize(cols, rows) {
    const at = this.line ? this.lines.indexOf(this.line) : 0;
    const before = this.lines.length;
    this.cols = cols;
    this.rows = rows;
    this.#rows.resize(rows);
    // An alternate screen that became smaller has lost its first lines.
    const lost = Math.max(0, before - this.lines.length);
    this.x = Math.min(this.x, cols - 1);
    this.y = Math.max(0, Math.min(rows - 1, at - lost - this.#rows.top));
    [this.#first, this.#last] = [0, rows - 1];
  }

  get lines() {
    return this.#rows.lines;
  }

  // The lines that look otherwise than when this was emptied.
  get dirty() {
    return this.#rows.dirty;
  }

  get line() {
    return this.#rows.at(this.y);
  }

  // The text of all lines, for tests and for people who cannot see colours.
  get text() {
    return this.lines.map((line) => line.cells.map((cell) => cell.sign).join("").trimEnd()).join("\n").trimEnd();
  }

  feed(text) {
    this.dirty.add(this.line);
    this.#text += text;
    let at = 0;
    while (at < this.#text.length) {
      const length = this.#text[at] === "\x1b" ? this.#escape(at) : this.#sign(at);
      if (!length) break; // The rest of a sequence is still to come.
      at += length;
    }
    this.#text = this.#text.slice(at);
    this.dirty.add(this.line);
  }

  #down() {
    this.dirty.add(this.line);
    if (this.y === this.#last) this.#rows.up(this.#first, this.#last);
    else if (this.y < this.rows - 1) this.y += 1;
    this.dirty.add(this.line);
  }

  #up() {
    if (this.y === this.#first) this.#rows.down(this.#first, this.#last);
    else if (this.y > 0) this.y -= 1;
  }

  // Lines that are inserted or deleted at the cursor push those below it around, within what scrolls.
  #shift(count, move) {
    if (this.y < this.#first || this.y > this.#last) return;
    for (let n = Math.min(count, this.#last - this.y + 1); n > 0; n -= 1) move(this.y, this.#last);
    this.x = 0;
  }

  #save() {
    this.#saved = { x: this.x, y: this.y, style: { ...this.#style } };
  }

  #restore() {
    this.x = Math.min(this.#saved.x, this.cols - 1);
    this.y = Math.min(this.#saved.y, this.rows - 1);
    this.#style = { ...this.#saved.style };
  }

  #reset() {
    this.#turn(false);
    this.#style = {};
    [this.#first, this.#last] = [0, this.rows - 1];
    this.#inserts = this.application = false;
    this.cursor = true;
  }

  // Between the two screens the cursor stays where it is.
  #turn(alternate) {
    if (this.#rows.turn(alternate)) [this.#first, this.#last] = [0, this.rows - 1];
  }

  #mode(number, on) {
    if (number === 1) this.application = on;
    else if (number === 25) this.cursor = on;
    else if (number === 1048) on ? this.#save() : this.#restore();
    else if (ALTERNATE.includes(number)) {
      if (number === 1049 && on) this.#save();
      this.#turn(on);
      if (number === 1049 && !on) this.#restore();
    }
  }

  #sign(at) {
    const code = this.#text.codePointAt(at);
    const sign = String.fromCodePoint(code);
    if (sign === "\n" || sign === "\v" || sign === "\f") this.#down();
    else if (sign === "\r") this.x = 0;
    else if (sign === "\b") this.x = Math.max(0, this.x - 1);
    else if (sign === "\t") this.x = Math.min(this.cols - 1, (Math.floor(this.x / TAB) + 1) * TAB);
    else if (code >= 0x20 && code !== 0x7f && !(code >= 0x80 && code < 0xa0)) {
      if (this.x >= this.cols) {
        this.x = 0;
        this.#down();
      }
      if (this.#inserts) this.#make(1);
      this.#put(this.x, sign);
      this.x += 1;
    }
    return sign.length;
  }

  #put(x, sign) {
    const { cells } = this.line;
    while (cells.length < x) cells.push({ sign: " ", style: "" });
    cells[x] = { sign, style: Object.values(this.#style).join(" ") };
    this.dirty.add(this.line);
  }

  // Makes room for signs at the cursor.
  #make(count) {
    const { cells } = this.line;
    while (cells.length < this.x) cells.push({ sign: " ", style: "" });
    cells.splice(this.x, 0, ...Array.from({ length: Math.min(count, this.cols) }, () => ({ sign: " ", style: "" })));
    cells.length = Math.min(cells.length, this.cols);
  }

  // Returns how long the sequence is; 0 as long as it has not ended.
  #escape(at) {
    const rest = this.#text.slice(at);
    if (rest.length < 2) return 0;
    if (rest[1] === "[") {
      const found = /^\x1b\[([?>=<]?)([0-?]*)([ -/]*)([@-~])/.exec(rest);
      if (found) {
        const [, mark, parameters, between, what] = found;
        const numbers = parameters.split(";").map((one) => Number.parseInt(one, 10) || 0);
        this.dirty.add(this.line);
        if (!mark && !between) this.#control(what, numbers);
        else if (mark === "?" && "hl".includes(what)) for (const one of numbers) this.#mode(one, what === "h");
        else if (between === "!" && what === "p") this.#reset();
        this.dirty.add(this.line);
        return found[0].length;
      }
      // A control sign inside, or one that is far too long: no sequence.
      return rest.length > 64 || /^\x1b\[[0-?]*[ -/]*[^ -~]/.test(rest) ? 2 : 0;
    }
    if ("]PX^_".includes(rest[1])) {
      const end = /\x07|\x1b\\/.exec(rest);
      if (end) return end.index + end[0].length;
      return rest.length > 4096 ? 2 : 0;
    }
    if ("()*+#% ".includes(rest[1])) return rest.length < 3 ? 0 : 3;
    this.dirty.add(this.line);
    if (rest[1] === "7") this.#save();
    else if (rest[1] === "8") this.#restore();
    else if (rest[1] === "D") this.#down();
    else if (rest[1] === "E") {
      this.x = 0;
      this.#down();
    } else if (rest[1] === "M") this.#up();
    else if (rest[1] === "c") {
      this.#reset();
      this.#erase(2);
      this.x = this.y = 0;
    }
    return 2;
  }

  #control(what, numbers) {
    const count = Math.max(1, numbers[0]);
    const column = (x) => Math.max(0, Math.min(this.cols - 1, x));
    const row = (y) => Math.max(0, Math.min(this.rows - 1, y));
    // Who moves within what scrolls stays there.
    const above = (y) => Math.max(this.y >= this.#first ? this.#first : 0, y);
    const below = (y) => Math.min(this.y <= this.#last ? this.#last : this.rows - 1, y);
    if (what === "m") this.#dress(numbers);
    else if (what === "A") this.y = above(this.y - count);
    else if (what === "B" || what === "e") this.y = below(this.y + count);
    else if (what === "C" || what === "a") this.x = column(this.x + count);
    else if (what === "D") this.x = column(this.x - count);
    else if (what === "E") [this.x, this.y] = [0, below(this.y + count)];
    else if (what === "F") [this.x, this.y] = [0, above(this.y - count)];
    else if (what === "G" || what === "`") this.x = column(count - 1);
    else if (what === "d") this.y = row(count - 1);
    else if (what === "H" || what === "f") [this.x, this.y] = [column((numbers[1] || 1) - 1), row(count - 1)];
    else if (what === "J") this.#erase(numbers[0]);
    else if (what === "K") this.#erase(numbers[0], true);
    else if (what === "P") this.line.cells.splice(this.x, count);
    else if (what === "X") for (let x = this.x; x < Math.min(this.x + count, this.cols); x += 1) this.#put(x, " ");
    else if (what === "@") this.#make(count);
    else if (what === "L") this.#shift(count, (first, last) => this.#rows.down(first, last));
    else if (what === "M") this.#shift(count, (first, last) => this.#rows.up(first, last, false));
    else if (what === "S") this.#scroll(count, () => this.#rows.up(this.#first, this.#last));
    else if (what === "T") this.#scroll(count, () => this.#rows.down(this.#first, this.#last));
    else if (what === "r") {
      const [first, last] = [count - 1, Math.min(numbers[1] || this.rows, this.rows) - 1];
      [this.#first, this.#last] = first < last ? [first, last] : [0, this.rows - 1];
      this.x = this.y = 0;
    } else if ((what === "h" || what === "l") && numbers.includes(4)) this.#inserts = what === "h";
    else if (what === "s") this.#save();
    else if (what === "u") this.#restore();
    else if (what === "n" && numbers[0] === 6) this.reply(`\x1b[${this.y + 1};${Math.min(this.x, this.cols - 1) + 1}R`);
    else if (what === "n" && numbers[0] === 5) this.reply("\x1b[0n");
  }

  #scroll(count, move) {
    for (let n = Math.min(count, this.rows); n > 0; n -= 1) move();
  }

  // From the cursor to the end (0), from the beginning to the cursor (1), or all (2): of the line, or of the screen.
  #erase(how, line = false) {
    const { cells } = this.line;
    if (how === 0) cells.length = Math.min(cells.length, this.x);
    else if (how === 1) for (let x = 0; x <= this.x && x < cells.length; x += 1) cells[x] = { sign: " ", style: "" };
    else cells.length = 0;
    this.dirty.add(this.line);
    if (line) return;
    const [first, last] = how === 0 ? [this.y + 1, this.rows] : how === 1 ? [0, this.y] : [0, this.rows];
    for (let y = first; y < last; y += 1) {
      const other = this.#rows.at(y);
      other.cells.length = 0;
      this.dirty.add(other);
    }
  }

  #dress(numbers) {
    for (let at = 0; at < numbers.length; at += 1) {
      const number = numbers[at];
      if (number === 0) this.#style = {};
      else if (number in WORDS) this.#style[WORDS[number]] = WORDS[number];
      else if (number in ENDS) for (const word of ENDS[number]) delete this.#style[word];
      else if (number >= 30 && number <= 37) this.#style.f = `f${number - 30}`;
      else if (number >= 90 && number <= 97) this.#style.f = `f${number - 82}`;
      else if (number >= 40 && number <= 47) this.#style.b = `b${number - 40}`;
      else if (number >= 100 && number <= 107) this.#style.b = `b${number - 92}`;
      else if (number === 39) delete this.#style.f;
      else if (number === 49) delete this.#style.b;
      else if (number === 38 || number === 48) {
        // Of 256 colours the sixteen are known; others stay as they are.
        const which = number === 38 ? "f" : "b";
        if (numbers[at + 1] === 5 && numbers[at + 2] < 16) this.#style[which] = `${which}${numbers[at + 2]}`;
        at += numbers[at + 1] === 5 ? 2 : numbers[at + 1] === 2 ? 4 : 0;
      }
    }
  }
}
