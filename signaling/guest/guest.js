// A browser alone in a call: it has no SGC, so its peer falls back to VP8. Speaks the protocol of the signalling server
// (streamgc/call/messages.py): join, then the one who came second offers.

const $ = (id) => document.getElementById(id);
const room = location.pathname.split("/").pop();
const PROTOCOL = 1;

let socket = null;
let pc = null;
let stream = null;
let iceServers = [];
let over = false;

$("command").textContent = `streamgc call ${location.href}`;

function show(title, text, { again = false } = {}) {
  $("title").textContent = title;
  $("text").textContent = text;
  $("words").hidden = false;
  $("join").hidden = !again;
  $("join").textContent = again ? "Join again" : "";
  $("price").hidden = true;
}

const say = (message) => socket?.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));

function phase(name, status = "") {
  document.body.dataset.phase = name;
  $("status").textContent = status;
  const inside = name === "waiting" || name === "connecting" || name === "connected";
  $("controls").hidden = !inside;
  $("picture").hidden = !inside;
  if (inside) $("words").hidden = true;
}

function end(title, text, again = true) {
  over = true;
  pc?.close();
  pc = null;
  socket?.close();
  for (const track of stream?.getTracks() ?? []) track.stop();
  phase("ended");
  show(title, text, { again });
}

async function camera() {
  const picture = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { max: 30 } };
  for (const wanted of [{ video: picture, audio: true }, { video: picture }, { audio: true }]) {
    try {
      return await navigator.mediaDevices.getUserMedia(wanted);
    } catch {
      continue; // no camera, no microphone, or not allowed: whatever there is
    }
  }
  return new MediaStream();
}

async function join() {
  over = false;
  $("join").disabled = true;
  const deaf = !navigator.mediaDevices; // a page that came over plain http gets no camera
  stream = navigator.mediaDevices ? await camera() : new MediaStream();
  $("join").disabled = false;
  for (const [button, kind] of [["camera", "video"], ["microphone", "audio"]]) apply(button, kind); // a second call begins as the first ended
  $("local").srcObject = stream;
  $("local").hidden = !stream.getVideoTracks().length;
  const address = new URL("/ws", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.search = location.search; // an admission ticket
  socket = new WebSocket(address);
  socket.onopen = () => say({ type: "join", room, protocol: PROTOCOL });
  socket.onmessage = (event) => take(JSON.parse(event.data));
  socket.onclose = () => {
    if (!over && pc?.connectionState !== "connected") end("No meeting server", "The server of this link does not answer. Try again in a moment.");
  };
  phase("waiting", deaf ? "Without https the browser gives no camera: you can watch only. Waiting…" : "Waiting for the other side…");
}

const REFUSALS = {
  "no-such-room": "The link is wrong, or the room has expired. Ask for a new one.",
  "room-full": "Two people are in this room already. Ask for another link.",
  replaced: "You have joined this call from elsewhere.",
};

async function take(message) {
  try {
    if (message.type === "joined") iceServers = message.ice;
    if (message.type === "joined" && message.peer_present) {
      const sdp = await describe(newPeer(true), "createOffer");
      say({ type: "describe", kind: "offer", text: sdp });
    } else if (message.type === "peer-joined") {
      pc?.close();
      pc = null;
      phase("connecting", "Connecting…");
    } else if (message.type === "describe" && message.kind === "offer") {
      const peer = newPeer(false);
      await peer.setRemoteDescription({ type: "offer", sdp: message.text });
      for (const transceiver of peer.getTransceivers()) send(transceiver);
      say({ type: "describe", kind: "answer", text: await describe(peer, "createAnswer") });
    } else if (message.type === "describe") {
      await pc.setRemoteDescription({ type: "answer", sdp: message.text });
    } else if (message.type === "peer-left" && message.deliberate) {
      end("The other side has left", "");
    } else if (message.type === "refused" && message.code !== "no-peer") {
      end("You cannot join", REFUSALS[message.code] ?? message.text);
    }
  } catch (error) {
    end("The call did not work", error.message);
  }
}

function newPeer(offering) {
  pc?.close();
  pc = new RTCPeerConnection({ iceServers });
  const peer = pc;
  const shown = new MediaStream();
  $("remote").srcObject = shown;
  peer.ontrack = ({ track }) => shown.addTrack(track);
  peer.onconnectionstatechange = () => {
    if (peer !== pc) return;
    if (peer.connectionState === "connected") phase("connected", "In a call over VP8: this browser has no SGC");
    if (peer.connectionState === "disconnected") phase("connected", "Nothing comes from the other side…");
    if (peer.connectionState === "failed") end("No way to the other side", "The connection was lost, or no network path was found.");
  };
  if (offering) {
    for (const kind of ["video", "audio"]) {
      const track = stream.getTracks().find((one) => one.kind === kind);
      peer.addTransceiver(track ?? kind, { direction: track ? "sendrecv" : "recvonly" });
    }
  }
  phase("connecting", "Connecting…");
  return peer;
}

function send(transceiver) {
  const track = stream.getTracks().find((one) => one.kind === transceiver.receiver.track.kind);
  if (!track) return;
  transceiver.sender.replaceTrack(track);
  transceiver.direction = "sendrecv";
}

// The description with all candidates: the other side takes no trickle.
async function describe(peer, make) {
  await peer.setLocalDescription(await peer[make]());
  if (peer.iceGatheringState !== "complete") {
    await new Promise((resolve) => {
      peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && resolve());
      setTimeout(resolve, 3000);
    });
  }
  return peer.localDescription.sdp;
}

function apply(button, kind) {
  const on = $(button).getAttribute("aria-pressed") === "true";
  for (const track of stream.getTracks()) if (track.kind === kind) track.enabled = on;
}

function toggle(button, kind, name) {
  $(button).onclick = () => {
    const on = $(button).getAttribute("aria-pressed") !== "true";
    $(button).setAttribute("aria-pressed", on);
    apply(button, kind);
    $(button).textContent = `${name} ${on ? "on" : "off"}`;
  };
}

toggle("camera", "video", "Camera");
toggle("microphone", "audio", "Microphone");
$("join").onclick = join;
$("hangup").onclick = () => {
  say({ type: "leave" });
  end("You have left the call", "");
};
