// The list: every device, how it is, and a small picture of it now and then.

import { ask, json } from "./ask.js";
import { failed, say, show } from "./page.js";
import { kind } from "./state.js";

const LOOK_MS = 2000;
const PICTURE_MS = 6000;

export function showList(session) {
  document.title = "Devices";
  show("list");
  document.getElementById("who").textContent = session.control ? session.user : `${session.user}, view only`;
  const list = document.getElementById("devices");
  const cards = new Map();
  let over = false;
  let timer = 0;
  let wrong = false;

  document.getElementById("leave").addEventListener("click", async () => {
    try {
      await ask("/session", "DELETE");
    } finally {
      location.reload();
    }
  });

  function card(name) {
    if (!cards.has(name)) {
      const item = document.getElementById("card").content.cloneNode(true).firstElementChild;
      item.querySelector("a").href = "#/" + encodeURIComponent(name);
      cards.set(name, { item, drawn: 0 });
      list.append(item);
    }
    return cards.get(name);
  }

  async function look() {
    try {
      const { devices } = await json("/api/devices");
      if (over) return;
      const there = new Set();
      for (const device of devices) {
        const screens = device.screens.length ? device.screens : [{ name: device.name, id: null }];
        for (const screen of screens) {
          there.add(screen.name);
          const one = card(screen.name);
          const part = (name) => one.item.querySelector(`.${name}`);
          part("name").textContent = screen.name;
          part("state").textContent = device.state;
          part("state").dataset.state = kind(device.state);
          part("owner").textContent = device.owner;
          part("serial").textContent = device.adb[Number(screen.name.split("/")[1] ?? 1) - 1] ?? "";
          part("nothing").textContent = screen.id ? "" : "no screen";
          part("thumb").querySelector("canvas").hidden = !screen.id;
          if (screen.id && Date.now() - one.drawn > PICTURE_MS && !document.hidden) {
            one.drawn = Date.now();
            draw(one.item.querySelector("canvas"), screen.id);
          }
        }
      }
      for (const [name, one] of cards) {
        if (!there.has(name)) {
          one.item.remove();
          cards.delete(name);
        }
      }
      document.getElementById("none").hidden = cards.size > 0;
      document.getElementById("count").textContent = cards.size || "";
      if (wrong) say("");
      wrong = false;
    } catch (error) {
      if (over) return;
      wrong = true;
      failed(error);
      if (error.status === 401) return;
    }
    timer = setTimeout(look, LOOK_MS);
  }

  look();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}

// The relay sends a key frame as the device encoded it; the browser has a decoder for it.
async function draw(canvas, id) {
  if (!("VideoDecoder" in window)) return;
  try {
    const data = await (await ask(`/api/devices/${encodeURIComponent(id)}/picture`)).arrayBuffer();
    const decoder = new VideoDecoder({
      output(frame) {
        canvas.width = frame.displayWidth;
        canvas.height = frame.displayHeight;
        canvas.getContext("2d").drawImage(frame, 0, 0);
        frame.close();
      },
      error() {},
    });
    decoder.configure({ codec: "vp8" });
    decoder.decode(new EncodedVideoChunk({ type: "key", timestamp: 0, data }));
    await decoder.flush();
    decoder.close();
  } catch { /* the next one may come */ }
}
