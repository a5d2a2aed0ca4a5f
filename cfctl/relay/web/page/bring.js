// The microphone and camera of whoever controls: the device has them until they are switched off, or another controls.

const WANTED = {
  audio: { audio: true },
  video: { video: { width: { ideal: 1280 }, height: { ideal: 720 } } },
};
const NAMES = { audio: "microphone", video: "camera" };

// `controls` tells whether what is done here reaches the device now.
export function bringing(session, part, say, controls) {
  const buttons = { audio: part("microphone"), video: part("camera") };
  const tracks = new Map();
  let over = false;

  function stop(kind) {
    const track = tracks.get(kind);
    if (!track) return false;
    tracks.delete(kind);
    track.stop();
    session.bring(kind, null);
    buttons[kind].setAttribute("aria-pressed", "false");
    return true;
  }

  async function start(kind) {
    let track;
    try {
      [track] = (await navigator.mediaDevices.getUserMedia(WANTED[kind])).getTracks();
    } catch (error) {
      say(`The ${NAMES[kind]} cannot be used: ${error.message}`);
      return;
    }
    // Whoever thought about it for long may have left meanwhile.
    if (over || tracks.has(kind)) return track.stop();
    track.addEventListener("ended", () => stop(kind));
    tracks.set(kind, track);
    session.bring(kind, track);
    buttons[kind].setAttribute("aria-pressed", "true");
    if (kind === "video") {
      const { width, height, frameRate, facingMode } = track.getSettings();
      const facing = facingMode === "environment" ? "back" : "front";
      session.send("device-control", { command: "camera_settings", width, height, frame_rate: frameRate ?? 30, facing });
    }
  }

  for (const [kind, button] of Object.entries(buttons)) {
    // Browsers give them to pages with a safe address alone: https, or loopback.
    button.hidden = !navigator.mediaDevices?.getUserMedia;
    button.addEventListener("click", () => {
      if (stop(kind)) return;
      if (controls()) start(kind);
      else say("Somebody else controls the device: take control first.");
    });
  }

  // Nobody is overheard by a device that somebody else has.
  function stopAll() {
    return Object.keys(buttons).filter(stop).map((kind) => NAMES[kind]);
  }
  return {
    taken() {
      const stopped = stopAll();
      if (stopped.length) say(`Somebody else controls: your ${stopped.join(" and ")} went off.`);
    },
    end() {
      over = true;
      stopAll();
    },
  };
}
