// The last two minutes: kbps sent and received as lines, VP8's figure as a dashed one. The scale is logarithmic, because
// ours and VP8's differ by a factor.

const SECONDS = 120;
const LINES = [1, 10, 100];

export class Chart {
  #points = [];

  constructor(canvas) {
    this.canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.#points = [];
    this.draw();
  }

  add(figures) {
    this.#points.push({ sent: figures.kbps_sent, received: figures.kbps_received, vp8: figures.vp8_kbps });
    if (this.#points.length > SECONDS) this.#points.shift();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, 110];
    if (!width) return;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const top = Math.max(100, ...this.#points.flatMap((p) => [p.sent, p.received, p.vp8 ?? 0]));
    const y = (kbps) => height - 5 - (height - 12) * (Math.log10(Math.max(kbps, 0.5) / 0.5) / Math.log10(top / 0.5));
    const x = (place) => 30 + ((width - 34) * (place + SECONDS - this.#points.length)) / (SECONDS - 1);
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
    const line = (name, values, dash = []) => {
      pen.strokeStyle = colour(name);
      pen.lineWidth = 2;
      pen.lineJoin = "round";
      pen.setLineDash(dash);
      pen.beginPath();
      let drawing = false;
      values.forEach((value, place) => {
        if (value === null) return;
        drawing ? pen.lineTo(x(place), y(value)) : pen.moveTo(x(place), y(value));
        drawing = true;
      });
      pen.stroke();
      pen.setLineDash([]);
    };
    line("--rival", this.#points.map((p) => p.vp8), [5, 4]);
    line("--other", this.#points.map((p) => p.received));
    line("--accent", this.#points.map((p) => p.sent));
  }
}

// One figure over the last two minutes, without a scale: the number beside it says how much.
export class Sparkline {
  #points = [];

  constructor(canvas) {
    this.canvas = canvas;
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  clear() {
    this.#points = [];
    this.draw();
  }

  add(value) {
    this.#points.push(value);
    if (this.#points.length > SECONDS) this.#points.shift();
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, 26];
    if (!width) return;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(document.documentElement);
    pen.strokeStyle = style.getPropertyValue("--line").trim();
    pen.strokeRect(0, height - 1, width, 0);
    pen.strokeStyle = style.getPropertyValue("--soft").trim();
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    const top = Math.max(1e-3, ...this.#points.filter((value) => value !== null)) * 1.15;
    let drawing = false;
    pen.beginPath();
    this.#points.forEach((value, place) => {
      if (value === null) return;
      const [x, y] = [(width * (place + SECONDS - this.#points.length)) / (SECONDS - 1), height - 2 - ((height - 4) * value) / top];
      drawing ? pen.lineTo(x, y) : pen.moveTo(x, y);
      drawing = true;
    });
    pen.stroke();
  }
}
