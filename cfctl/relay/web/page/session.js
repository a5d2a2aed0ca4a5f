// A session with a device: signalling over a WebSocket, media and data channels over WebRTC. It begins again by itself.

import { ask, AWAY } from "./ask.js";

const RETRY_MS = [500, 10000];
const ABSENT_MS = 2000;
const PING_MS = 1000;

export class Session extends EventTarget {
  #id;
  #there;
  #socket = null;
  #peer = null;
  #channels = new Map();
  #retry = RETRY_MS[0];
  #timer = 0;
  #ping = 0;
  #over = false;
  #work = Promise.resolve();
  #say = () => {};
  // What goes to the device as well, by its kind: tracks, the transceivers that carry them, and whether that is agreed.
  #brought = new Map();
  #carriers = new Map();
  #owed = false;
  #away = false;

  // `there` tells whether the device has a screen now: only then it is worth trying.
  constructor(id, there) {
    super();
    this.#id = id;
    this.#there = there;
    this.info = {};
    this.roundTrip = null;
    this.#begin();
  }

  get peer() {
    return this.#peer;
  }

  end() {
    this.#over = true;
    clearTimeout(this.#timer);
    this.#drop();
  }

  // Somebody has reached the relay: where it was away, it is not waited for any longer.
  hurry() {
    if (!this.#away || this.#over) return;
    clearTimeout(this.#timer);
    this.#retry = RETRY_MS[0];
    this.#begin();
  }

  // Sends on a data channel, if it is open: input that comes late is worth nothing.
  send(label, data) {
    const channel = this.#channels.get(label);
    if (channel?.readyState !== "open") return false;
    channel.send(typeof data === "string" ? data : JSON.stringify(data));
    return true;
  }

  // Sends a microphone ("audio") or camera ("video") to the device, in this connection and those to come; null ends it.
  bring(kind, track) {
    if (track) this.#brought.set(kind, track);
    else this.#brought.delete(kind);
    const peer = this.#peer;
    if (peer) this.#then(peer, () => this.#propose(peer));
  }

  // One thing after the other: descriptions that cross each other are nobody's.
  #then(peer, work) {
    this.#work = this.#work.then(work).catch((error) => {
      if (peer === this.#peer) this.#again(error.message);
    });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #drop() {
    clearInterval(this.#ping);
    this.#socket?.close();
    this.#peer?.close();
    this.#socket = this.#peer = null;
    this.#channels.clear();
    this.#carriers.clear();
    this.#owed = false;
  }

  #again(why) {
    if (this.#over) return;
    this.#drop();
    this.#tell("state", { connected: false, why });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#begin(), this.#retry);
    this.#retry = Math.min(2 * this.#retry, RETRY_MS[1]);
  }

  async #begin() {
    this.#away = false;
    this.#tell("state", { connected: false, why: "Connecting…" });
    let config;
    let relayOnly;
    let there;
    try {
      let answer;
      [answer, there] = await Promise.all([ask("/infra_config"), this.#there()]);
      relayOnly = answer.headers.get("X-Cfctl-Relay-Only") === "1";
      config = await answer.json();
    } catch (error) {
      if (error.status === 401) this.#tell("refused", error);
      if (!this.#over) this.#away = true;
      return this.#again(AWAY);
    }
    if (this.#over) return;
    if (!there) {
      this.#retry = ABSENT_MS;
      return this.#again("");
    }
    const address = new URL(`/devices/${encodeURIComponent(this.#id)}/connect`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = this.#socket = new WebSocket(address);
    const peer = this.#peer = new RTCPeerConnection({
      iceServers: config.ice_servers,
      iceTransportPolicy: relayOnly ? "relay" : "all",
    });
    const say = this.#say = (message) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
    };
    socket.onopen = () => say({ type: "request-offer" });
    socket.onmessage = (event) => {
      const frame = JSON.parse(event.data);
      if (frame.device_info) this.info = frame.device_info;
      else if (frame.error) this.#again(frame.error);
      else if (frame.payload && peer === this.#peer) {
        this.#then(peer, () => this.#hear(peer, frame.payload));
      }
    };
    socket.onclose = () => {
      if (socket === this.#socket) this.#again("The connection to the relay is gone.");
    };
    peer.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) say({ type: "ice-candidate", candidate });
    };
    peer.ontrack = ({ track, streams, receiver }) => {
      // A screen is no film: what arrives is shown.
      receiver.jitterBufferTarget = 0;
      if (streams[0]) this.#tell("stream", { track, stream: streams[0] });
    };
    peer.ondatachannel = ({ channel }) => this.#take(channel);
    peer.onconnectionstatechange = () => {
      if (peer !== this.#peer) return;
      if (peer.connectionState === "connected") {
        this.#retry = RETRY_MS[0];
        this.#tell("state", { connected: true, why: "" });
      } else if (["failed", "closed"].includes(peer.connectionState)) {
        this.#again("The connection is gone.");
      }
    };
    this.#ping = setInterval(() => this.send("cfctl-control", { type: "ping", at: performance.now() }), PING_MS);
  }

  async #hear(peer, payload) {
    if (peer !== this.#peer) return;
    if (payload.type === "offer") {
      await peer.setRemoteDescription({ type: "offer", sdp: payload.sdp });
      if (!this.#channels.has("input-channel")) {
        for (const label of ["input-channel", "sensors-channel", "cfctl-control"]) {
          this.#take(peer.createDataChannel(label));
        }
      }
      await peer.setLocalDescription(await peer.createAnswer());
      this.#say({ type: "answer", sdp: peer.localDescription.sdp });
      await this.#propose(peer);
    } else if (payload.type === "answer") {
      await peer.setRemoteDescription({ type: "answer", sdp: payload.sdp });
      this.#owed = false;
      await this.#propose(peer);
    } else if (payload.type === "ice-candidate") {
      await peer.addIceCandidate({
        candidate: payload.candidate, sdpMid: payload.mid, sdpMLineIndex: payload.mLineIndex,
      });
    } else if (payload.type === "error") {
      throw new Error(payload.error);
    }
  }

  // Offers what is brought, if that is not agreed upon. An offer of the relay's that crosses ours goes first.
  async #propose(peer) {
    if (peer !== this.#peer || peer.signalingState !== "stable" || !peer.remoteDescription) return;
    for (const kind of ["audio", "video"]) if (await this.#carry(peer, kind)) this.#owed = true;
    if (!this.#owed) return;
    await peer.setLocalDescription();
    this.#say({ type: "offer", sdp: peer.localDescription.sdp });
  }

  // The device sends on the same line: it is one for both directions, and the same one whenever there is something.
  async #carry(peer, kind) {
    const track = this.#brought.get(kind) ?? null;
    const carrier = this.#carriers.get(kind);
    if ((carrier?.sender.track ?? null) === track) return false;
    if (carrier) {
      await carrier.sender.replaceTrack(track);
      const hears = carrier.direction === "sendrecv" || carrier.direction === "recvonly";
      if (track) carrier.direction = hears ? "sendrecv" : "sendonly";
      else carrier.direction = hears ? "recvonly" : "inactive";
    } else {
      const sender = peer.addTrack(track);
      this.#carriers.set(kind, peer.getTransceivers().find((one) => one.sender === sender));
    }
    return true;
  }

  #take(channel) {
    channel.binaryType = "arraybuffer";
    this.#channels.set(channel.label, channel);
    channel.onmessage = ({ data }) => {
      if (channel.label === "cfctl-control") {
        const message = JSON.parse(data);
        if (message.type === "pong") this.roundTrip = performance.now() - message.at;
        else if (message.type === "hands") this.#tell("hands", message);
      } else if (channel.label === "device-control") {
        this.#tell("event", JSON.parse(data));
      }
    };
  }
}
