// What the last two minutes were like, drawn on canvases.

const SECONDS = 120;
const LINES = [1, 10, 100];

// Points of the last two minutes, drawn again when there is another one, other room, or another colour scheme.
class Recent {
  points = [];

  constructor(canvas, height) {
    Object.assign(this, { canvas, height });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.points = [];
    this.draw();
  }

  add(point) {
    this.points.push(point);
    if (this.points.length > SECONDS) this.points.shift();
    this.draw();
  }

  draw() {
    const { canvas, height } = this;
    const scale = devicePixelRatio || 1;
    const width = canvas.clientWidth;
    if (!width) return;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.lineJoin = "round";
    const style = getComputedStyle(document.documentElement);
    this.paint(pen, width, (name) => style.getPropertyValue(name).trim());
  }

  // A line through the values that there are; the newest is at the right.
  line(pen, values, left, width, y) {
    let drawing = false;
    pen.beginPath();
    values.forEach((value, place) => {
      if (value === null) return;
      const x = left + (width * (place + SECONDS - values.length)) / (SECONDS - 1);
      drawing ? pen.lineTo(x, y(value)) : pen.moveTo(x, y(value));
      drawing = true;
    });
    pen.stroke();
  }
}

// kbps sent and received as lines, VP8's figure as a dashed one. The scale is logarithmic, because ours and VP8's differ
// by a factor.
export class Chart extends Recent {
  constructor(canvas) {
    super(canvas, 110);
  }

  add(figures) {
    super.add({ sent: figures.kbps_sent, received: figures.kbps_received, vp8: figures.vp8_kbps });
  }

  paint(pen, width, colour) {
    const { points, height } = this;
    const top = Math.max(100, ...points.flatMap((p) => [p.sent, p.received, p.vp8 ?? 0]));
    const y = (kbps) => height - 5 - (height - 12) * (Math.log10(Math.max(kbps, 0.5) / 0.5) / Math.log10(top / 0.5));
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = colour("--soft");
    pen.strokeStyle = colour("--line");
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const kbps of LINES) {
      pen.fillText(kbps, 24, y(kbps));
      pen.beginPath();
      pen.moveTo(30, y(kbps));
      pen.lineTo(width, y(kbps));
      pen.stroke();
    }
    pen.lineWidth = 2;
    for (const [name, what, dash] of [
      ["--rival", "vp8", [5, 4]],
      ["--other", "received", []],
      ["--accent", "sent", []],
    ]) {
      pen.strokeStyle = colour(name);
      pen.setLineDash(dash);
      this.line(pen, points.map((p) => p[what]), 30, width - 34, y);
    }
  }
}

// One figure, without a scale: the number beside it says how much.
export class Sparkline extends Recent {
  constructor(canvas) {
    super(canvas, 26);
  }

  paint(pen, width, colour) {
    const { points, height } = this;
    pen.strokeStyle = colour("--line");
    pen.strokeRect(0, height - 1, width, 0);
    pen.strokeStyle = colour("--soft");
    pen.lineWidth = 1.5;
    const top = Math.max(1e-3, ...points.filter((value) => value !== null)) * 1.15;
    this.line(pen, points, 0, width, (value) => height - 2 - ((height - 4) * value) / top);
  }
}
