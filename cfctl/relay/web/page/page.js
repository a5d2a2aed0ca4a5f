// Which view is shown: the door, the list, or a device. The address behind the # says it.

import { ask, json, Refused } from "./ask.js";
import { showList } from "./list.js";
import { showDevice } from "./device.js";

const SAID_MS = 8000;

const main = document.getElementById("main");
const status = document.getElementById("status");
let leave = () => {};
let said = 0;

// Says something for a while; whoever cannot see it goes on finding it.
export function say(text) {
  clearTimeout(said);
  // What goes on is not read out again and again.
  if (status.textContent !== text) status.textContent = text;
  status.classList.remove("gone");
  said = setTimeout(() => status.classList.add("gone"), SAID_MS);
}

export function show(name) {
  main.replaceChildren(document.getElementById(name).content.cloneNode(true));
}

// `why` is what went wrong; nothing if nobody has tried to enter.
function door(why = "") {
  leave();
  leave = () => {};
  document.title = "Sign in";
  show("enter");
  const wrong = (text) => {
    const place = document.getElementById("why");
    place.textContent = text;
    place.className = "bad";
    place.setAttribute("role", "alert");
  };
  if (why) wrong(why);
  document.querySelector("form.enter").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await ask("/session", "POST", { token: document.getElementById("token").value.trim() });
      route();
    } catch (error) {
      wrong(error.message);
    }
  });
  document.getElementById("token").focus();
}

// A view that is refused for want of a session ends here.
export function failed(error) {
  if (error instanceof Refused && error.status === 401) door(error.message);
  else say(error.message);
}

// What somebody has typed or pasted may be no address at all.
function named() {
  const text = location.hash.replace(/^#\/?/, "");
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function route() {
  leave();
  leave = () => {};
  say("");
  let session;
  try {
    session = await json("/session");
  } catch (error) {
    return failed(error);
  }
  if (!session.user) return door();
  const name = named();
  leave = name ? showDevice(name, session) : showList(session);
}

// A link's code counts once: it is handed over, and is gone from the address before anything else happens.
async function enter() {
  const given = new URLSearchParams(location.hash.slice(1));
  const device = given.get("device") ?? "";
  const code = given.get("code");
  history.replaceState(null, "", "/#/" + encodeURIComponent(device));
  try {
    if (code) await ask("/session", "POST", { code });
  } catch (error) {
    // Whoever has a session already needs no link.
    const { user } = await json("/session").catch(() => ({ user: null }));
    if (!user) return door(error.message);
  }
  return route();
}

addEventListener("hashchange", route);
if (location.pathname === "/enter") enter();
else route();
