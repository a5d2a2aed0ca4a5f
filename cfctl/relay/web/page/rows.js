// The lines of a terminal: the last `count` are its screen, those before it have gone off its top. An alternate screen
// (of an editor, a pager) lies over both and leaves them as they were. It knows no DOM: whoever draws asks what changed.

export class Rows {
  #scrollback;
  #hidden = null;

  constructor(scrollback) {
    this.#scrollback = scrollback;
    this.count = 0;
    this.lines = [];
    this.dirty = new Set();
  }

  get alternate() {
    return this.#hidden !== null;
  }

  // The number of the line that is the screen's first.
  get top() {
    return this.lines.length - this.count;
  }

  at(y) {
    return this.lines[this.top + y];
  }

  resize(count) {
    this.count = count;
    while (this.lines.length < count) this.#insert(this.lines.length);
    this.#trim();
  }

  // Shows another screen, which is empty, or the one below it again; returns whether that is news.
  turn(alternate) {
    if (alternate === this.alternate) return false;
    [this.lines, this.#hidden] = alternate ? [[], this.lines] : [this.#hidden, null];
    this.dirty.clear();
    this.resize(this.count);
    for (const line of this.lines) this.dirty.add(line);
    return true;
  }

  // Moves the lines from `first` to `last` of the screen up by one, and makes room at the bottom. With `keep`, what
  // leaves the top of the screen can be scrolled back to.
  up(first, last, keep = true) {
    const at = this.top;
    const kept = keep && first === 0 && !this.alternate;
    if (!kept) this.#remove(at + first);
    this.#insert(at + last + (kept ? 1 : 0));
    this.#trim();
  }

  down(first, last) {
    const at = this.top;
    this.#remove(at + last);
    this.#insert(at + first);
  }

  #insert(at) {
    const line = { cells: [] };
    this.lines.splice(at, 0, line);
    this.dirty.add(line);
  }

  #remove(at) {
    for (const line of this.lines.splice(at, 1)) this.dirty.delete(line);
  }

  #trim() {
    const most = this.alternate ? this.count : Math.max(this.#scrollback, this.count);
    while (this.lines.length > most) this.#remove(0);
  }
}
