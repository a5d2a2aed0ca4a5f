// The statistics over the picture: frames and bits per second, how far away the device is, what was lost.

export function numbers(session) {
  let before = null;
  return async () => {
    const peer = session.peer;
    if (!peer) return "not connected";
    const report = await peer.getStats();
    let video = null;
    let pair = null;
    let selected = null;
    for (const one of report.values()) {
      if (one.type === "inbound-rtp" && one.kind === "video" && (!video || one.bytesReceived > video.bytesReceived)) {
        video = one;
      } else if (one.type === "candidate-pair" && (one.selected || (one.nominated && !pair?.selected))) {
        // Firefox marks the pair that is used; elsewhere the transport names it, and several may be nominated.
        pair = one;
      } else if (one.type === "transport") selected = one.selectedCandidatePairId;
    }
    pair = report.get(selected) ?? pair;
    if (!video) return "no picture yet";
    const now = {
      at: video.timestamp, bytes: video.bytesReceived, frames: video.framesDecoded,
      waited: video.jitterBufferDelay, emitted: video.jitterBufferEmittedCount, decode: video.totalDecodeTime,
    };
    const past = before && before.frames <= now.frames ? before : now;
    before = now;
    const seconds = (now.at - past.at) / 1000 || 1;
    const frames = now.frames - past.frames;
    const buffered = now.emitted > past.emitted ? (1000 * (now.waited - past.waited)) / (now.emitted - past.emitted) : 0;
    const decode = frames ? (1000 * (now.decode - past.decode)) / frames : 0;
    const trip = session.roundTrip ?? (pair?.currentRoundTripTime ?? 0) * 1000;
    // TURN is on the way whoever of the two has asked for it.
    const ends = [pair?.localCandidateId, pair?.remoteCandidateId];
    const turn = ends.some((end) => report.get(end)?.candidateType === "relay");
    const rows = [
      ["picture", `${video.frameWidth ?? 0} × ${video.frameHeight ?? 0}`],
      ["shown", `${(frames / seconds).toFixed(0)} frames/s`],
      ["bitrate", `${((8 * (now.bytes - past.bytes)) / seconds / 1000).toFixed(0)} kbit/s`],
      ["round trip", `${trip.toFixed(0)} ms${turn ? " (TURN)" : ""}`],
      ["latency", `about ${(trip / 2 + buffered + decode).toFixed(0)} ms`],
      ["lost", `${video.packetsLost} packets`],
      ["dropped", `${video.framesDropped} frames`],
    ];
    return rows.map(([name, value]) => name.padEnd(12) + value).join("\n");
  };
}
