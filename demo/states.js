// What the page says in each state of the call: one line above, and the cover over the picture where there is none.

const REASONS = {
  "server-gone": ["No meeting server", "The server at which the two of you find each other does not answer. Is it running? (streamgc signaling)"],
  "room-full": ["This room is full", "Two people are in it already. Ask for another link, or open a new room."],
  "no-room": ["No such room", "The link is wrong, or the room has expired. Ask for it again, or open a new one."],
  unreachable: ["No way to the other side", "You found each other, but no network path was found. Check that UDP is allowed, or start with --turn."],
};

const COVERS = {
  idle: ["Calls at a few kilobits a second", "Only you are sent; the rest of the picture is made where it is seen."],
  starting: ["Joining…", ""],
  waiting: ["Waiting for the other side", ""],
  connecting: ["Connecting…", ""],
  left: ["The other side has left", ""],
  ended: ["You have left the call", ""],
};

const LINES = {
  idle: "Not in a call", starting: "Joining the room…", waiting: "In the room, waiting for the other side",
  connecting: "Connecting…", connected: "In a call", silent: "Nothing comes from the other side…",
  reconnecting: "Reconnecting…", left: "The other side has left", ended: "You have left the call", failed: "Not connected",
};

// The short authentication string: what the chip over the picture says, and the words under it.
export function describeCode(code) {
  return code
    ? [`Code ${code}`, "Read this code to each other. If both of you see the same, nobody sits between you – not even the meeting server."]
    : ["No code", "The other side has no code to compare, as a browser alone has none: that nobody sits between you depends on the meeting server."];
}

const BADGES = { silent: "Nothing comes from the other side", reconnecting: "Reconnecting…" };

export const LINK_FULL = "The link is full: fewer pictures a second";

const CAMERA = {
  NotAllowedError: ["The camera is not allowed", "Allow it for this page in the address bar, then ask again. You can join and watch without it."],
  NotFoundError: ["No camera found", "Plug one in and ask again. You can join and watch without it."],
  NotReadableError: ["The camera is busy", "Another program seems to use it. Close that, then ask again."],
};

export function cameraTrouble(error) {
  return CAMERA[error.name] ?? ["The camera does not work", error.message || error.name];
}

// What to show for a situation of the agent; `camera` is [title, text] when there is trouble with it.
export function describe({ phase, text, reason }, camera) {
  const failed = phase === "failed" ? (REASONS[reason] ?? ["The call did not work", text]) : null;
  const lobby = phase === "idle" || (phase === "failed" && reason !== "server-gone");
  const cover = failed ?? (phase === "idle" && camera) ?? COVERS[phase];
  return {
    line: text && phase === "connecting" ? text : LINES[phase],
    cover: cover || COVERS[phase] || null,
    badge: BADGES[phase] ?? "",
    lobby: lobby || (phase === "failed" && reason === "server-gone"),
    invite: phase === "waiting",
    again: phase === "left" || phase === "ended",
    inCall: ["starting", "waiting", "connecting", "connected", "silent", "reconnecting"].includes(phase),
  };
}

export const AGENT_GONE = {
  line: "The local agent does not answer", cover: ["StreamGC has stopped", "Start it again in the terminal (streamgc call) and open the address it prints."],
  badge: "", lobby: false, invite: false, again: false, inCall: false,
};

export const REPLACED = {
  line: "Open in another tab", cover: ["This call is open in another tab", "Reload this page to bring it back here."],
  badge: "", lobby: false, invite: false, again: false, inCall: false,
};
