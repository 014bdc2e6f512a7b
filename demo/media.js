// Camera and microphone, and the WebRTC leg to the agent: camera and sound up, two pictures (the far side, what is sent of
// me) and the far side's sound down.

const SOUND = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

// The stream of whatever there is, and the error of the camera when that is missing: { stream, error }.
export async function openDevices(fps, wantsCamera) {
  const devices = navigator.mediaDevices;
  const missing = Object.assign(new Error(), { name: "NotFoundError" });
  if (!devices?.getUserMedia) return { stream: null, error: missing };
  const video = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: Math.max(15, fps), max: 30 } };
  const attempts = wantsCamera ? [{ video, audio: SOUND }, { video }, { audio: SOUND }] : [{ audio: SOUND }];
  let error = null;
  for (const wanted of attempts) {
    // whoever has just said no is not asked again for the microphone alone
    if (error?.name === "NotAllowedError" && !wanted.video && !(await microphoneGranted())) break;
    try {
      const stream = await devices.getUserMedia(wanted);
      return { stream, error: wanted.video || !wantsCamera ? null : error };
    } catch (problem) {
      if (wanted.video) error = problem; // in the end what is wrong with the camera alone
    }
  }
  return { stream: null, error: wantsCamera ? error : null };
}

async function microphoneGranted() {
  try {
    return (await navigator.permissions.query({ name: "microphone" })).state === "granted";
  } catch {
    return false; // a browser that does not know the name
  }
}

export class Leg {
  #pc = null;

  // onLost() is called when the leg breaks and a new one is needed.
  async open(devices, remote, own, sound, onLost) {
    this.close();
    const pc = (this.#pc = new RTCPeerConnection({ iceServers: [] }));
    const track = devices?.getVideoTracks()[0];
    const microphone = devices?.getAudioTracks()[0];
    const up = pc.addTransceiver(track ?? "video", { direction: "sendonly" });
    const down = [remote, own].map((video) => {
      const transceiver = pc.addTransceiver("video", { direction: "recvonly" });
      const { receiver } = transceiver;
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      video.srcObject = new MediaStream([receiver.track]);
      return transceiver;
    });
    const talk = pc.addTransceiver(microphone ?? "audio", { direction: microphone ? "sendrecv" : "recvonly" });
    if ("jitterBufferTarget" in talk.receiver) talk.receiver.jitterBufferTarget = 0;
    sound.srcObject = new MediaStream([talk.receiver.track]);
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
