// Fingers, mouse, wheel and keys on the screen, as the device's own.

const WHEEL_ID = 1_000_000;
const WHEEL_REST_MS = 150;

// Pixels of a unit: of WheelEvent.DOM_DELTA_PIXEL, _LINE and _PAGE.
const WHEEL_UNITS = [1, 16, 400];

// Where a pointer is, in pixels of the video as the device sends it: the picture may be turned and have borders.
export function place(video, angle, clientX, clientY) {
  const box = video.parentElement.getBoundingClientRect();
  const width = video.videoWidth;
  const height = video.videoHeight;
  if (!width || !height) return null;
  const turned = angle % 180 !== 0;
  const scale = Math.min(box.width / (turned ? height : width), box.height / (turned ? width : height));
  const radians = (-angle * Math.PI) / 180;
  const dx = (clientX - box.left - box.width / 2) / scale;
  const dy = (clientY - box.top - box.height / 2) / scale;
  const x = Math.trunc(dx * Math.cos(radians) - dy * Math.sin(radians) + width / 2);
  const y = Math.trunc(dx * Math.sin(radians) + dy * Math.cos(radians) + height / 2);
  return { x: clamp(x, width), y: clamp(y, height), inside: x >= 0 && y >= 0 && x < width && y < height };
}

const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));

// Listens on the screen; `view` says what is shown: { video, angle(), label(), mouse() }.
export function listen(screen, view, send) {
  const down = new Map();
  const keys = new Set();
  let wheel = null;

  const touch = (id, at, pressed) =>
    send({ type: "multi-touch", id: [id], x: [at.x], y: [at.y], down: pressed, device_label: view.label() });
  const where = (event) => place(view.video, view.angle(), event.clientX, event.clientY);
  const press = (code, pressed) =>
    send({ type: "keyboard", keycode: code, event_type: pressed ? "keydown" : "keyup" });

  screen.addEventListener("pointerdown", (event) => {
    screen.focus({ preventScroll: true });
    const at = where(event);
    if (!at?.inside || event.button !== 0) return;
    event.preventDefault();
    screen.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at);
    touch(event.pointerId, at, 1);
  });
  screen.addEventListener("pointermove", (event) => {
    if (!down.has(event.pointerId)) return;
    const at = where(event);
    const before = down.get(event.pointerId);
    if (!at || (at.x === before.x && at.y === before.y)) return;
    down.set(event.pointerId, at);
    touch(event.pointerId, at, 1);
  });
  const lift = (event) => {
    if (!down.has(event.pointerId)) return;
    const at = where(event) ?? down.get(event.pointerId);
    down.delete(event.pointerId);
    touch(event.pointerId, at, 0);
  };
  screen.addEventListener("pointerup", lift);
  screen.addEventListener("pointercancel", lift);
  screen.addEventListener("contextmenu", (event) => event.preventDefault());

  screen.addEventListener("wheel", (event) => {
    event.preventDefault();
    const pixels = Math.trunc(-event.deltaY * (WHEEL_UNITS[event.deltaMode] ?? 1));
    if (!pixels) return;
    if (view.mouse()) {
      send({ type: "mouseWheel", pixels });
      return;
    }
    // A device without a mouse is scrolled by a finger.
    const at = where(event);
    if (!at?.inside) return;
    if (!wheel) {
      wheel = { x: at.x, y: at.y };
      touch(WHEEL_ID, wheel, 1);
    }
    wheel.y = clamp(wheel.y + pixels, view.video.videoHeight);
    touch(WHEEL_ID, wheel, 1);
    clearTimeout(wheel.timer);
    wheel.timer = setTimeout(() => {
      touch(WHEEL_ID, wheel, 0);
      wheel = null;
    }, WHEEL_REST_MS);
  }, { passive: false });

  const release = () => {
    for (const code of keys) press(code, false);
    keys.clear();
    for (const [id, at] of down) touch(id, at, 0);
    down.clear();
  };
  screen.addEventListener("keydown", (event) => {
    if (event.code === "Escape" && event.shiftKey) {
      release();
      document.querySelector("#tools button").focus();
      return;
    }
    // Pasting is typing; the browser tells of it by an event of its own.
    if (event.code === "KeyV" && (event.ctrlKey || event.metaKey)) return;
    if (!event.code || event.isComposing) return;
    event.preventDefault();
    if (event.repeat) return;
    keys.add(event.code);
    press(event.code, true);
  });
  screen.addEventListener("keyup", (event) => {
    if (!keys.delete(event.code)) return;
    event.preventDefault();
    press(event.code, false);
  });
  screen.addEventListener("blur", release);
  addEventListener("blur", release);
  return {
    press,
    end() {
      release();
      removeEventListener("blur", release);
    },
  };
}
