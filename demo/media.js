// The camera, and the WebRTC leg to the agent: one stream up (the camera), two down (the far side, what is sent of me).

export async function openCamera(fps) {
  if (!navigator.mediaDevices?.getUserMedia) throw Object.assign(new Error(), { name: "NotFoundError" });
  return navigator.mediaDevices.getUserMedia({
    video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: Math.max(15, fps), max: 30 } },
    audio: false,
  });
}

export class Leg {
  #pc = null;

  // onLost() is called when the leg breaks and a new one is needed.
  async open(camera, remote, own, onLost) {
    this.close();
    const pc = (this.#pc = new RTCPeerConnection({ iceServers: [] }));
    const track = camera?.getVideoTracks()[0];
    const up = pc.addTransceiver(track ?? "video", { direction: "sendonly" });
    const down = [remote, own].map((video) => {
      const transceiver = pc.addTransceiver("video", { direction: "recvonly" });
      const { receiver } = transceiver;
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      video.srcObject = new MediaStream([receiver.track]);
      return transceiver;
    });
    pc.onconnectionstatechange = () => {
      if (pc === this.#pc && pc.connectionState === "failed") onLost();
    };
    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc);
    const reply = await fetch("offer", { method: "POST", body: JSON.stringify({ sdp: pc.localDescription.sdp }) });
    if (!reply.ok) throw new Error(await reply.text());
    await pc.setRemoteDescription({ type: "answer", sdp: (await reply.json()).sdp });
    if (track) await keepSharp(up.sender);
    return down;
  }

  close() {
    const pc = this.#pc;
    this.#pc = null;
    pc?.close();
  }
}

// The leg does not leave the machine: let the encoder keep size and rate.
async function keepSharp(sender) {
  const parameters = sender.getParameters();
  for (const encoding of parameters.encodings ?? []) encoding.maxBitrate = 4_000_000;
  parameters.degradationPreference = "maintain-resolution";
  await sender.setParameters(parameters).catch(() => {});
}

function gathered(pc) {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => pc.iceGatheringState === "complete" && resolve();
    pc.addEventListener("icegatheringstatechange", done);
    setTimeout(resolve, 2000);
  });
}
