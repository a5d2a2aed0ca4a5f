// A small terminal: what a serial console writes, as lines of cells. It knows no DOM; whoever draws it asks what changed.

const TAB = 8;
const SCROLLBACK = 2000;

// Keys of a style: "f1" and "b4" are colours of the sixteen, the rest are words.
const WORDS = { 1: "bold", 2: "dim", 4: "under", 7: "inverse" };
const ENDS = { 22: ["bold", "dim"], 24: ["under"], 27: ["inverse"] };

export class Vt {
  #text = "";
  #style = {};
  #saved = { x: 0, y: 0 };

  // `reply` gets what the guest asked the terminal for.
  constructor({ cols = 80, rows = 24, scrollback = SCROLLBACK, reply = () => {} } = {}) {
    this.scrollback = scrollback;
    this.reply = reply;
    this.lines = [];
    this.dirty = new Set();
    this.dropped = [];
    this.x = this.y = 0;
    this.resize(cols, rows);
  }

  resize(cols, rows) {
    const at = this.line ? this.lines.indexOf(this.line) : 0;
    this.cols = cols;
    this.rows = rows;
    while (this.lines.length < rows) this.#add();
    this.x = Math.min(this.x, cols - 1);
    this.y = Math.max(0, Math.min(rows - 1, at - this.top));
  }

  // The number of the line that is the screen's first.
  get top() {
    return this.lines.length - this.rows;
  }

  get line() {
    return this.lines[this.top + this.y];
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

  #add() {
    const line = { cells: [] };
    this.lines.push(line);
    this.dirty.add(line);
    while (this.lines.length > Math.max(this.scrollback, this.rows)) {
      const old = this.lines.shift();
      this.dirty.delete(old);
      this.dropped.push(old);
    }
  }

  #down() {
    this.dirty.add(this.line);
    if (this.y < this.rows - 1) this.y += 1;
    else this.#add();
    this.dirty.add(this.line);
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

  // Returns how long the sequence is; 0 as long as it has not ended.
  #escape(at) {
    const rest = this.#text.slice(at);
    if (rest.length < 2) return 0;
    if (rest[1] === "[") {
      const found = /^\x1b\[([0-?]*)[ -/]*([@-~])/.exec(rest);
      if (found) {
        this.#control(found[2], found[1]);
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
    if (rest[1] === "7") this.#saved = { x: this.x, y: this.y };
    else if (rest[1] === "8") ({ x: this.x, y: this.y } = this.#saved);
    else if (rest[1] === "D" || rest[1] === "E") this.#down();
    else if (rest[1] === "M") this.y = Math.max(0, this.y - 1);
    else if (rest[1] === "c") {
      this.#style = {};
      this.#erase(2);
      this.x = this.y = 0;
    }
    return 2;
  }

  #control(what, parameters) {
    const numbers = parameters.split(";").map((one) => Number.parseInt(one, 10) || 0);
    const count = Math.max(1, numbers[0]);
    const column = (x) => Math.max(0, Math.min(this.cols - 1, x));
    const row = (y) => Math.max(0, Math.min(this.rows - 1, y));
    this.dirty.add(this.line);
    if (what === "m") this.#dress(numbers);
    else if (what === "A") this.y = row(this.y - count);
    else if (what === "B" || what === "e") this.y = row(this.y + count);
    else if (what === "C" || what === "a") this.x = column(this.x + count);
    else if (what === "D") this.x = column(this.x - count);
    else if (what === "E") [this.x, this.y] = [0, row(this.y + count)];
    else if (what === "F") [this.x, this.y] = [0, row(this.y - count)];
    else if (what === "G" || what === "`") this.x = column(count - 1);
    else if (what === "d") this.y = row(count - 1);
    else if (what === "H" || what === "f") [this.x, this.y] = [column((numbers[1] || 1) - 1), row(count - 1)];
    else if (what === "J") this.#erase(numbers[0]);
    else if (what === "K") this.#erase(numbers[0], true);
    else if (what === "P") this.line.cells.splice(this.x, count);
    else if (what === "X") for (let x = this.x; x < Math.min(this.x + count, this.cols); x += 1) this.#put(x, " ");
    else if (what === "@") {
      this.line.cells.splice(this.x, 0, ...Array.from({ length: count }, () => ({ sign: " ", style: "" })));
      this.line.cells.length = Math.min(this.line.cells.length, this.cols);
    } else if (what === "s") this.#saved = { x: this.x, y: this.y };
    else if (what === "u") ({ x: this.x, y: this.y } = this.#saved);
    else if (what === "n" && numbers[0] === 6) this.reply(`\x1b[${this.y + 1};${Math.min(this.x, this.cols - 1) + 1}R`);
    else if (what === "n" && numbers[0] === 5) this.reply("\x1b[0n");
    this.dirty.add(this.line);
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
      const other = this.lines[this.top + y];
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
