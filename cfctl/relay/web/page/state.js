// What is said of a device: one pure function, from what is known to what is shown.

const KINDS = {
  running: "good", preparing: "wait", booting: "wait", stopping: "wait", suspended: "wait",
  failed: "bad", unreachable: "bad", stale: "bad",
};

// How a state is coloured: what can be used, what will be soon, what has failed, what is off.
export const kind = (state) => KINDS[state] ?? "off";

const SOON = ["preparing", "booting", "stopping"];

// What a device that has no picture is: title, text, the command that helps.
function without(device, name) {
  const whole = name.split("/")[0];
  if (!device) {
    return ["There is no such device", `Nothing here is called ${name}, or it is not yours to see.`, "cfctl ps"];
  }
  if (SOON.includes(device.state)) return [`${name} is ${device.state}`, "Its screen appears here.", ""];
  if (device.state === "suspended") return [`${name} is suspended`, "It goes on where it was.", `cfctl resume ${whole}`];
  if (device.state === "running") {
    return [`${name} shows no screen here`, "It was launched before the relay served.", `cfctl restart ${whole}`];
  }
  return [`${name} is ${device.state}`, "Its screen appears here when it runs.", `cfctl restart ${whole}`];
}

// `known`: { name, device, asked, there, connected, why, pictured, before }: the device as the relay lists it (null if
// it lists none, once it was asked), whether it has a screen, the connection to it, and whether there was one before.
export function shown(known) {
  const { name, device, asked, there, connected, why, pictured, before } = known;
  const up = there && ["running", "booting"].includes(device.state);
  const live = up && connected && pictured;
  if (live) return { live, badge: "Live", kind: "good", title: "", text: "", command: "", busy: false };
  if (!asked || up) {
    const badge = before ? "Reconnecting" : "Connecting";
    const title = why || "Waiting for the first picture…";
    return { live, badge, kind: "wait", title, text: before && why ? "Trying again…" : "", command: "", busy: true };
  }
  const [title, text, command] = without(device, name);
  const soon = device !== null && SOON.includes(device.state);
  return { live, badge: device?.state ?? "unknown", kind: kind(device?.state), title, text, command, busy: soon };
}
