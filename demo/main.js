// Wires the page together: agent, camera, buttons, keys.

import { AgentLink } from "./agent.js";
import { Chart, Sparkline } from "./chart.js";
import { Leg, openDevices } from "./media.js";
import { AGENT_GONE, LINK_FULL, REPLACED, cameraTrouble, describe, describeCode } from "./states.js";

const $ = (id) => document.getElementById(id);
const link = new AgentLink();
const leg = new Leg();
const chart = new Chart($("chart"));
const sparks = Object.fromEntries([...document.querySelectorAll("[data-spark]")].map((canvas) => [canvas.dataset.spark, new Sparkline(canvas)]));
const OWN_CAPTIONS = { kept: "What is kept of you", theirs: "What they see" };

let situation = { phase: "idle", text: "", reason: "", room: "" };
let settings = null;
let about = null;
let code = "";
let stream = null;
let trouble = null; // [title, text] when there is no camera
let crowded = false;
let toastTimer = 0;
let legTries = 0;

// ---- what is shown

function render(state = describe(situation, trouble)) {
  document.body.dataset.phase = situation.phase;
  $("status").textContent = state.line;
  $("cover").hidden = !state.cover;
  if (state.cover) [$("cover-title").textContent, $("cover-text").textContent] = state.cover;
  $("lobby").hidden = !state.lobby;
  $("invite").hidden = !state.invite;
  $("again").hidden = !state.again;
  $("rejoin").hidden = !situation.room;
  const badge = state.badge || (situation.phase === "connected" && crowded ? LINK_FULL : "");
  $("badge").hidden = !badge;
  $("badge").textContent = badge;
  $("hangup").disabled = !state.inCall;
  const together = ["connected", "silent"].includes(situation.phase);
  $("code").hidden = !together || Boolean(state.cover);
  [$("code-letters").textContent, $("code-text").textContent] = describeCode(code);
  document.body.classList.toggle("unverifiable", !code);
  $("retry-camera").hidden = !(trouble && situation.phase === "idle");
  if (state.invite) {
    $("link").value = situation.link;
    $("command").textContent = situation.command;
  }
}

function choose(group, matches) {
  for (const button of $(group).querySelectorAll("[role=radio]")) {
    const chosen = matches(button.dataset);
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen ? 0 : -1;
  }
}

function renderSettings() {
  const { background, preserve, camera, microphone, view, mark, kbps } = settings;
  choose("backgrounds", (data) => data.mode === background);
  choose("people", ({ policy }) => policy === preserve || (policy === "id" && !["all", "main"].includes(preserve)));
  choose("views", (data) => data.view === view);
  $("camera").setAttribute("aria-pressed", camera);
  $("camera").textContent = camera ? "Camera on" : "Camera off";
  const tracks = stream?.getAudioTracks() ?? [];
  for (const track of tracks) track.enabled = microphone;
  $("microphone").disabled = !tracks.length;
  $("microphone").setAttribute("aria-pressed", microphone);
  $("microphone").textContent = !tracks.length ? "No mic" : microphone ? "Mic on" : "Muted";
  document.body.classList.toggle("camera-off", !camera);
  for (const track of stream?.getVideoTracks() ?? []) track.enabled = camera;
  $("own-frame").hidden = view === "off";
  $("own-caption").textContent = OWN_CAPTIONS[view] ?? "";
  document.body.dataset.own = view;
  $("mark").checked = mark;
  if (![...$("quality").options].some((option) => Number(option.value) === kbps))
    $("quality").append(new Option(`${kbps} kbps`, kbps));
  $("quality").value = String(kbps);
  if (document.activeElement?.tabIndex === -1) document.activeElement.blur();
}

function renderFigures(figures) {
  const { kbps_sent: ours, vp8_kbps: rival, codec } = figures;
  document.body.dataset.figures = "some";
  $("kbps").textContent = short(ours);
  document.body.dataset.rival = rival === null ? "none" : "some";
  const most = Math.max(ours, rival ?? 0, 1);
  $("bar-ours").style.width = `${(100 * ours) / most}%`;
  $("bar-vp8").style.width = `${(100 * (rival ?? 0)) / most}%`;
  if (rival !== null) {
    const times = rival / Math.max(ours, 0.1);
    $("vp8").textContent = short(rival);
    $("against").textContent = "The same pictures over VP8 at its coarsest quality";
    if (codec === "SGC" && times >= 1.15) $("against").append(` take ${times.toFixed(1)} times as much.`);
    else $("against").append(` take ${Math.round(rival)} kbps.`);
    $("against").title =
      "Measured here every 20 s: two seconds of your pictures, same size and rate, through WebRTC's VP8 at its coarsest quality (quantiser 56), packet headers counted";
  }
  $("fps").textContent = `${Math.round(figures.fps_shown)} / s`;
  $("latency").textContent = figures.latency_ms === null ? "–" : `${Math.round(figures.latency_ms)} ms`;
  $("loss").textContent = `${(100 * figures.loss).toFixed(1)} %`;
  $("received").textContent = `${figures.kbps_received.toFixed(1)} kbps`;
  $("note").hidden = !figures.note;
  $("note").textContent = figures.note;
  if (figures.crowded !== crowded) {
    crowded = figures.crowded;
    render();
  }
  chart.add(figures);
  sparks.fps.add(figures.fps_shown);
  sparks.latency.add(figures.latency_ms);
  sparks.loss.add(figures.loss);
  sparks.received.add(figures.kbps_received);
}

const short = (kbps) => (kbps < 10 ? kbps.toFixed(1) : String(Math.round(kbps)));

function toast(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 4000);
}

// ---- camera and leg

async function askCamera() {
  trouble = null;
  const wantsCamera = about.source === "camera";
  const opened = await openDevices(about.fps, wantsCamera);
  stream = opened.stream;
  if (opened.error) trouble = cameraTrouble(opened.error);
  const camera = stream?.getVideoTracks()[0];
  if (camera) {
    camera.onended = () => {
      trouble = cameraTrouble({ name: "NotFoundError" });
      $("local-frame").hidden = true;
      toast("The camera has gone");
      render();
    };
  }
  $("local").srcObject = stream;
  $("local-frame").hidden = !camera;
  if (settings) renderSettings();
  render();
  await openLeg();
}

async function openLeg() {
  try {
    await leg.open(stream, $("remote"), $("own"), $("sound"), retryLeg);
    $("sound").play().catch(() => addEventListener("pointerdown", () => $("sound").play(), { once: true }));
    legTries = 0;
  } catch (error) {
    toast(`No pictures from the agent: ${error.message}`);
    retryLeg();
  }
}

function retryLeg() {
  if (legTries++ < 5) setTimeout(openLeg, 1000 * legTries);
}

// ---- the agent speaks

link.on("hello", (message) => {
  const first = !about;
  about = message;
  $("engine").textContent = `${message.model} · ${message.engine} · ${message.width}×${message.height}`;
  for (const button of document.querySelectorAll("#backgrounds button, #people button"))
    button.disabled = !message.switchable;
  if (first) askCamera();
  else openLeg();
});
link.on("settings", (message) => {
  settings = message;
  renderSettings();
});
link.on("situation", (message) => {
  if (message.phase === "starting") {
    for (const one of [chart, ...Object.values(sparks)]) one.clear();
    $("vp8").textContent = "–";
    $("note").hidden = true;
  }
  situation = message;
  render();
});
link.on("figures", renderFigures);
link.on("trouble", (message) => toast(message.text));
link.on("authentication", (message) => {
  code = message.code;
  $("code").open = false;
  render();
});
link.on("down", () => {
  situation = { ...situation, phase: "failed" };
  render(AGENT_GONE);
});
link.on("replaced", () => {
  leg.close();
  render(REPLACED);
});

// ---- buttons and keys

$("create").onclick = $("fresh").onclick = () => link.send("create");
$("rejoin").onclick = () => link.send("join", { room: situation.room });
$("join").onsubmit = (event) => {
  event.preventDefault();
  const room = $("room").value.trim();
  if (room) link.send("join", { room });
  else $("room").focus();
};
$("hangup").onclick = () => link.send("hangup");
$("camera").onclick = () => link.send("camera", { on: !settings.camera });
$("microphone").onclick = () => link.send("microphone", { on: !settings.microphone });
$("speaker").onclick = () => {
  const on = ($("sound").muted = !$("sound").muted) === false;
  $("speaker").setAttribute("aria-pressed", on);
  $("speaker").textContent = on ? "Sound on" : "Sound off";
};
$("mark").onchange = () => link.send("mark", { on: $("mark").checked });
$("quality").onchange = () => link.send("quality", { kbps: Number($("quality").value) });
$("retry-camera").onclick = askCamera;
$("copy").onclick = async () => {
  try {
    await navigator.clipboard.writeText($("link").value);
  } catch {
    $("link").select();
    document.execCommand("copy");
  }
  toast("Link copied");
};
$("own-frame").onclick = (event) => {
  const box = $("own").getBoundingClientRect();
  const { videoWidth, videoHeight } = $("own");
  if (!videoWidth || settings.view === "off") return;
  // the picture covers its square: undo the cut
  const scale = Math.max(box.width / videoWidth, box.height / videoHeight);
  const x = 0.5 + (event.clientX - box.left - box.width / 2) / (scale * videoWidth);
  const y = 0.5 + (event.clientY - box.top - box.height / 2) / (scale * videoHeight);
  link.send("pick", { x: clamp(x), y: clamp(y) });
};

const clamp = (value) => Math.min(1, Math.max(0, value));

for (const [group, act] of [
  ["backgrounds", ({ mode }) => link.send("background", { mode })],
  ["views", ({ view }) => link.send("view", { view })],
  ["people", ({ policy }) => choosePeople(policy)],
]) {
  const buttons = [...$(group).querySelectorAll("button")];
  buttons.forEach((button, place) => {
    button.onclick = () => act(button.dataset);
    button.onkeydown = (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = buttons[(place + step + buttons.length) % buttons.length];
      next.tabIndex = 0;
      next.focus();
      act(next.dataset);
    };
  });
}

function choosePeople(policy) {
  if (policy !== "id") return link.send("preserve", { policy });
  if (settings.view === "off") link.send("view", { view: "kept" });
  toast("Click the person in the small picture");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  const press = { c: "camera", h: "hangup", m: "microphone", s: "speaker" }[event.key.toLowerCase()];
  if (press && !$(press).disabled) $(press).click();
});

render();
link.connect();
