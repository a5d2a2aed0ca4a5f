// What the pages of host packages ask their operator through; the relay stands where the operator is.

const POLL_MS = [1000, 60000];
const INTRODUCTION_MS = 3000;

export function deviceId() {
  const parts = location.pathname.split("/");
  const at = parts.indexOf("devices");
  if (at < 0 || parts[at + 2] !== "files") throw new Error(`no device in ${location.pathname}`);
  return decodeURIComponent(parts[at + 1]);
}

async function ask(path, body) {
  const answer = await fetch(path, body === undefined ? {} : { method: "POST", body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${(await answer.text()).trim()}`);
  return answer.json();
}

class Connector {
  #heard = () => {};
  #early = [];

  onDeviceMsg(callback) {
    this.#heard = callback;
    for (const payload of this.#early?.splice(0) ?? []) callback(payload);
    this.#early = null;
  }

  told(payload) {
    if (this.#early) this.#early.push(payload);
    else this.#heard(payload);
  }

  expectMessagesSoon() {}
}

class SocketConnector extends Connector {
  #socket = null;

  async requestDevice(id) {
    const infraConfig = await ask("/infra_config");
    const address = new URL(`/devices/${encodeURIComponent(id)}/connect`, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = this.#socket = new WebSocket(address);
    const deviceInfo = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the relay says nothing of the device")), INTRODUCTION_MS);
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        if (frame.device_info) {
          clearTimeout(timer);
          resolve(frame.device_info);
        } else if (frame.message_type === "device_msg") {
          this.told(frame.payload);
        }
      };
      socket.onerror = () => reject(new Error("no WebSocket to the relay"));
    });
    return { deviceInfo, infraConfig };
  }

  async sendToDevice(payload) {
    this.#socket.send(JSON.stringify(payload));
  }

  close() {
    this.#socket?.close();
  }
}

class PollingConnector extends Connector {
  #path = "";
  #next = 0;
  #wait = POLL_MS[0];
  #timer = 0;

  async requestDevice(id) {
    const infraConfig = await ask("/infra_config");
    const { connection_id, device_info } = await ask("/polled_connections", { device_id: id });
    this.#path = `/polled_connections/${connection_id}`;
    this.#look();
    return { deviceInfo: device_info, infraConfig };
  }

  async sendToDevice(payload) {
    await ask(`${this.#path}/:forward`, { payload });
    this.expectMessagesSoon();
  }

  expectMessagesSoon() {
    this.#wait = POLL_MS[0];
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), this.#wait);
  }

  async #look() {
    clearTimeout(this.#timer);
    try {
      const found = await ask(`${this.#path}/messages?start=${this.#next}`);
      this.#next += found.length;
      this.#wait = found.length ? POLL_MS[0] : Math.min(2 * this.#wait, POLL_MS[1]);
      for (const message of found) this.told(message.payload);
    } catch (error) {
      console.error(error);
      this.#wait = Math.min(2 * this.#wait, POLL_MS[1]);
    }
    this.#timer = setTimeout(() => this.#look(), this.#wait);
  }
}

// Tries the WebSocket first: proxies that cannot pass one on are still met.
class EitherConnector {
  #chosen = null;
  #callback = () => {};

  onDeviceMsg(callback) {
    this.#callback = callback;
    this.#chosen?.onDeviceMsg(callback);
  }

  async requestDevice(id) {
    if (typeof WebSocket !== "undefined") {
      const socket = new SocketConnector();
      try {
        const found = await socket.requestDevice(id);
        this.#choose(socket);
        return found;
      } catch (error) {
        console.warn(error.message);
        socket.close();
      }
    }
    const polling = new PollingConnector();
    const found = await polling.requestDevice(id);
    this.#choose(polling);
    return found;
  }

  #choose(connector) {
    this.#chosen = connector;
    connector.onDeviceMsg(this.#callback);
  }

  sendToDevice(payload) {
    return this.#chosen.sendToDevice(payload);
  }

  expectMessagesSoon(ms) {
    this.#chosen?.expectMessagesSoon(ms);
  }
}

export async function createConnector() {
  return new EitherConnector();
}

export class DisplayInfo {
  constructor(display_id, width, height) {
    this.display_id = display_id;
    this.width = width;
    this.height = height;
  }
}

export class DeviceFrameMessage {
  constructor(type, payload) {
    this.type = type;
    this.payload = payload;
  }
}

export class DeviceDisplaysMessage extends DeviceFrameMessage {
  constructor(rotation) {
    super("displays_info", { device_id: deviceId(), rotation, displays: [] });
  }

  addDisplay(display_id, width, height) {
    this.payload.displays.push(new DisplayInfo(display_id, width, height));
  }

  send() {
    if (window.parent !== window) window.parent.postMessage({ ...this }, location.origin);
  }
}

export const DeviceDisplaysMessageImpl = DeviceDisplaysMessage;

export function createParentController() {
  return { createDeviceDisplaysMessage: (rotation) => new DeviceDisplaysMessage(rotation) };
}
