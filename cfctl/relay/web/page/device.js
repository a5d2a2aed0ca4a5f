// One device: its screen, its buttons, and who controls it.

import { json } from "./ask.js";
import { failed, say, show } from "./page.js";
import { bringing } from "./bring.js";
import { sit } from "./console.js";
import { listen } from "./hands.js";
import { typeText } from "./keys.js";
import { numbers } from "./numbers.js";
import { Session } from "./session.js";
import { shown } from "./state.js";

const NUMBERS_MS = 1000;
const TURN_MS = 1500;
const LOOK_MS = 3000;

export function showDevice(name) {
  document.title = name;
  show("device");
  const part = (id) => document.getElementById(id);
  const video = part("video");
  const screen = part("screen");
  const streams = new Map();
  let display = "";
  let angle = 0;
  let wanted = 0;
  let mine = false;
  let refusal = "";
  let may = false;
  let free = false;
  let takes = false;
  let gives = false;
  let live = false;
  let over = false;
  part("name").textContent = name;

  // -- how it is --

  const known = {
    name, device: null, asked: false, there: false, connected: false, why: "Connecting…", pictured: false, before: false,
  };
  let watching = 0;

  // Asks for the device; returns whether it has a screen.
  async function look() {
    const { devices } = await json("/api/devices");
    if (over) return false;
    // A device with several instances is called by its name before any of them is known.
    const here = (one) => [name, `${name}/1`].includes(one.name) || one.id === name;
    const device = devices.find((one) => one.screens.some(here)) ?? devices.find((one) => one.name === name.split("/")[0]);
    const there = device?.screens.some(here) ?? false;
    learn({ device: device ?? null, asked: true, there });
    part("tabs").hidden = !device?.console;
    // Nobody stays at the console of what is gone, without a way back.
    if (!device && part("panel-screen").hidden) turnTo(tabs[0]);
    part("adb").hidden = !device?.adb.some(Boolean);
    return there;
  }
  async function lookAgain() {
    // What cannot be asked is no news: the session says that the relay is away.
    if (!document.hidden) {
      await look().then(() => session.hurry(), (error) => error.status === 401 && !over && failed(error));
    }
    if (!over) watching = setTimeout(lookAgain, LOOK_MS);
  }

  function learn(news) {
    if (over) return;
    Object.assign(known, news);
    const now = shown(known);
    live = now.live;
    part("stage").dataset.connected = known.connected;
    part("stage").dataset.picture = now.live;
    part("live").textContent = now.badge;
    part("live").dataset.state = now.kind;
    part("veil-title").textContent = now.title;
    part("veil-text").textContent = now.text;
    part("veil-command").textContent = now.command;
    part("veil-command").hidden = !now.command;
    part("veil").dataset.busy = now.busy;
    control();
    buttons();
  }
  // Who controls the screen is said beside the screen, and while there is one.
  function control() {
    const here = live && !part("panel-screen").hidden;
    part("hands").hidden = !here;
    part("take").hidden = !(here && takes);
    part("give").hidden = !(here && gives);
  }
  // What touches the device is of use only to whoever may, and while it is there.
  function buttons() {
    for (const button of document.querySelectorAll("#tools [data-press], #rotate, #paste, #microphone, #camera")) {
      button.disabled = !(may && live);
      button.title = live && !may ? refusal : "";
    }
  }
  for (const event of ["loadeddata", "resize"]) {
    video.addEventListener(event, () => learn({ pictured: video.videoWidth > 0 }));
  }

  const session = new Session(name, look);
  const view = {
    video,
    angle: () => angle,
    label: () => display || "display_0",
    mouse: () => Boolean(session.info.mouse_enabled),
  };
  const send = (message) => session.send("input-channel", message);
  const media = bringing(session, part, say, () => mine || free);
  const hands = listen(screen, view, send);

  // -- the picture --

  function turn(degrees) {
    angle = ((degrees % 360) + 360) % 360;
    fit();
  }

  // A picture on its side fills the stage the other way round.
  function fit() {
    const box = screen.getBoundingClientRect();
    const turned = angle % 180 !== 0;
    video.style.width = turned ? `${box.height}px` : "";
    video.style.height = turned ? `${box.width}px` : "";
    video.style.maxWidth = video.style.maxHeight = turned ? "none" : "";
    video.style.transform = angle ? `rotate(${angle}deg)` : "";
    video.style.flex = turned ? "none" : "";
  }
  const watcher = new ResizeObserver(fit);
  watcher.observe(screen);

  function choose(id) {
    display = id;
    if (video.srcObject !== streams.get(id)) video.srcObject = streams.get(id) ?? null;
    const list = part("displays");
    const known = [...streams.keys()].filter((one) => one.startsWith("display_")).sort();
    list.replaceChildren(...known.map((one) => new Option(one, one, false, one === id)));
    list.hidden = known.length < 2;
  }
  part("displays").addEventListener("change", (event) => choose(event.target.value));

  const sound = new Audio();
  session.addEventListener("stream", ({ detail: { stream, track } }) => {
    streams.set(stream.id, stream);
    if (track.kind === "audio") {
      sound.srcObject = stream;
      part("sound").hidden = false;
      return;
    }
    track.addEventListener("ended", () => streams.delete(stream.id));
    choose(!display || display === stream.id ? stream.id : display);
  });
  session.addEventListener("state", ({ detail }) => {
    learn({ connected: detail.connected, why: detail.why, before: known.before || detail.connected });
  });
  session.addEventListener("refused", ({ detail }) => failed(detail));

  // -- who controls --

  session.addEventListener("hands", ({ detail: state }) => {
    mine = state.may && (state.mode === "shared" || state.holder === state.you);
    free = state.may && state.mode === "one" && state.holder === null;
    let who = "";
    if (mine) who = "You control";
    else if (free) who = "Free: touch it to control";
    else if (state.holder !== null && state.name) who = `${state.name} controls`;
    const others = state.viewers > 1 ? `${state.viewers} viewers` : "";
    part("hands").textContent = [state.may ? "" : "View only", who, others].filter(Boolean).join(" · ");
    refusal = mine || free ? "" : `${who || "Somebody else controls"}. Press Take control to touch it.`;
    if (!state.may) refusal = "This link or token may only look.";
    takes = state.may && !mine && !free;
    gives = mine && state.mode === "one" && state.viewers > 1;
    control();
    screen.classList.toggle("mine", mine || free);
    may = state.may;
    if (!mine && !free) media.taken();
    buttons();
  });
  // Who touches in vain is told why; returns whether he does.
  function refused() {
    if (live && refusal) say(refusal);
    return live && refusal !== "";
  }
  screen.addEventListener("pointerdown", refused);
  screen.addEventListener("keydown", ({ key, repeat }) => repeat || ["Shift", "Escape"].includes(key) || refused());
  part("take").addEventListener("click", () => session.send("cfctl-control", { type: "take" }));
  part("give").addEventListener("click", () => session.send("cfctl-control", { type: "give" }));

  // -- the device's own buttons --

  for (const button of document.querySelectorAll("#tools [data-press]")) {
    const tell = (state) => session.send("device-control", { command: button.dataset.press, button_state: state });
    let held = false;
    const press = (event) => {
      event.preventDefault();
      refused();
      if (!held) held = tell("down");
    };
    const release = () => {
      if (held) tell("up");
      held = false;
    };
    button.addEventListener("pointerdown", press);
    for (const end of ["pointerup", "pointerleave", "pointercancel", "blur"]) button.addEventListener(end, release);
    button.addEventListener("keydown", (event) => {
      if (event.code === "Enter" || event.code === "Space") press(event);
    });
    button.addEventListener("keyup", release);
  }

  session.addEventListener("event", ({ detail }) => {
    if (detail.event === "VIRTUAL_DEVICE_SCREEN_CHANGED" && detail.metadata?.rotation !== undefined) {
      clearTimeout(turning);
      turn(Number(detail.metadata.rotation) || 0);
      wanted = angle;
    }
  });
  let turning = 0;
  part("rotate").addEventListener("click", () => {
    if (refused()) return;
    wanted = (wanted + 90) % 360;
    const z = wanted > 180 ? wanted - 360 : wanted;
    session.send("sensors-channel", `0 0 ${z}`);
    // A guest that does not say that it has turned is shown turned anyhow.
    clearTimeout(turning);
    const target = wanted;
    turning = setTimeout(() => turn(target), TURN_MS);
  });

  // -- the page's own --

  const counted = (number) => (number === 1 ? "1 character was" : `${number} characters were`);
  async function type(text) {
    if (refused()) return;
    const { lacking, untyped } = await typeText(text, (code, down) => !refusal && hands.press(code, down));
    if (over) return;
    const said = [];
    if (untyped) said.push(refusal || "The connection is gone.", `${counted(untyped)} not typed.`);
    if (lacking) said.push(`${counted(lacking)} left out: the device's keyboard has no key for it.`);
    say(said.join(" ") || "Typed.");
  }
  screen.addEventListener("paste", (event) => {
    event.preventDefault();
    type(event.clipboardData.getData("text"));
  });
  part("paste").addEventListener("click", () => refused() || part("typing").showModal());
  part("typing").addEventListener("close", () => {
    if (part("typing").returnValue === "type") type(part("text").value);
    part("text").value = "";
    part("typing").returnValue = "";
  });
  part("full").addEventListener("click", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else part("stage").requestFullscreen().then(() => screen.focus(), (error) => say(error.message));
  });
  part("sound").addEventListener("click", () => {
    const on = sound.paused;
    if (on) sound.play().catch((error) => say(error.message));
    else sound.pause();
    part("sound").setAttribute("aria-pressed", on);
  });
  const measure = numbers(session);
  let measuring = 0;
  part("numbers").addEventListener("click", () => {
    const on = part("stats").hidden;
    part("stats").hidden = !on;
    part("numbers").setAttribute("aria-pressed", on);
    clearInterval(measuring);
    const look = async () => {
      const text = await measure();
      if (!over) part("stats").textContent = text;
    };
    if (on) {
      look();
      measuring = setInterval(look, NUMBERS_MS);
    }
  });
  part("adb").addEventListener("click", async () => {
    // Where the relay's host is a context of somebody's, cfctl adds what it takes to get there.
    const command = `cfctl adb ${name}`;
    try {
      await navigator.clipboard.writeText(command);
      say(`Copied: ${command}`);
    } catch {
      say(command);
    }
  });

  // -- the console --

  let seat = null;
  const tabs = ["screen", "console"].map((id) => part(`tab-${id}`));
  function turnTo(tab) {
    for (const one of tabs) {
      const on = one === tab;
      one.setAttribute("aria-selected", on);
      one.tabIndex = on ? 0 : -1;
      part(one.getAttribute("aria-controls")).hidden = !on;
    }
    control();
    if (tab === tabs[1]) {
      seat ??= sit(name, part("panel-console"));
      seat.focus();
    } else screen.focus({ preventScroll: true });
  }
  for (const tab of tabs) {
    tab.addEventListener("click", () => turnTo(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[tabs[0] === tab ? 1 : 0];
      turnTo(other);
      other.focus();
    });
  }

  lookAgain();
  // Where there are no keys, a frame around the picture says nothing.
  if (matchMedia("(any-pointer: fine)").matches) screen.focus({ preventScroll: true });

  return () => {
    over = true;
    clearTimeout(watching);
    hands.end();
    media.end();
    seat?.end();
    session.end();
    watcher.disconnect();
    clearInterval(measuring);
    clearTimeout(turning);
    sound.pause();
  };
}
