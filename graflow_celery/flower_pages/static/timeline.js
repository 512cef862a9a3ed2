// Attempts as bars, by worker: what ran when, and where nothing ran.
import { duration, html, svg } from "./dom.js";

const ROW = 14;
const HEAD = 22;
const AXIS = 22;
const LEFT = 8;
const ZOOMS = [1, 2, 4, 8, 16, 32];

export class Timeline {
  constructor(host, tools, model, selected) {
    this.host = host;
    this.model = model;
    this.selected = selected;
    this.zoom = 0;
    const step = (text, name, by) =>
      html("button", { type: "button", class: "btn btn-sm btn-outline-secondary", "aria-label": name,
        onclick: () => this.rezoom(by) }, text);
    tools.replaceChildren(step("−", "Zoom out", -1), step("+", "Zoom in", 1));
  }

  rezoom(by) {
    this.zoom = Math.min(ZOOMS.length - 1, Math.max(0, this.zoom + by));
    this.draw(this.from, this.to);
  }

  draw(from, to) {
    this.from = from;
    this.to = Math.max(to, from + 0.001);
    const attempts = this.model.attempts;
    if (!attempts.length) {
      this.host.replaceChildren(html("p", { class: "pl-empty" }, "Nothing has run yet."));
      return;
    }
    const width = Math.max(280, this.host.clientWidth - 2) * ZOOMS[this.zoom];
    this.scale = (width - 2 * LEFT) / (this.to - this.from);
    const picture = svg("svg", { width, role: "img", class: "pl-gantt" });
    const lanes = lanesOf(attempts, this.to);
    let y = AXIS;
    for (const lane of lanes) y = this.lane(picture, lane, y, width);
    picture.setAttribute("height", y + 4);
    picture.prepend(this.axis(width, y));
    picture.setAttribute("aria-label", lanes.map((lane) => `${lane.worker}: ${told(lane, this.from, this.to)}`).join("; "));
    const left = this.host.scrollLeft;
    this.host.replaceChildren(picture);
    this.host.scrollLeft = left;
  }

  x(at) {
    return LEFT + (Math.min(Math.max(at, this.from), this.to) - this.from) * this.scale;
  }

  lane(picture, lane, y, width) {
    const height = lane.rows.length * (ROW + 2);
    picture.append(
      svg("text", { class: "pl-lane-name", x: LEFT, y: y + 15 }, `${lane.worker}  ·  ${told(lane, this.from, this.to)}`),
      svg("rect", { class: "pl-lane", x: LEFT, y: y + HEAD, width: width - 2 * LEFT, height }),
    );
    lane.rows.forEach((row, index) => {
      for (const bar of merged(row, (at) => this.x(at), this.to)) picture.append(this.bar(bar, y + HEAD + index * (ROW + 2) + 1));
    });
    return y + HEAD + height + 8;
  }

  bar(bar, y) {
    const { first, count, left, right } = bar;
    const text = count > 1 ? `${count} attempts, ${first.outcome}` : barTitle(first, this.to);
    return svg("rect", { class: `pl-attempt s-${first.outcome}`, x: left, y, width: Math.max(1.5, right - left), height: ROW, rx: 2,
      onclick: () => this.selected(this.model.nodes.get(first.node)) }, svg("title", {}, text));
  }

  axis(width, height) {
    const marks = svg("g", { class: "pl-axis" });
    const step = stepOf((this.to - this.from) / Math.max(2, width / 110));
    for (let at = 0; at <= this.to - this.from; at += step) {
      const x = this.x(this.from + at);
      marks.append(svg("line", { x1: x, x2: x, y1: AXIS - 4, y2: height }));
      const end = x > width - 50;
      marks.append(svg("text", { x: end ? x - 2 : x + 2, y: 13, "text-anchor": end ? "end" : "start" }, duration(at)));
    }
    return marks;
  }
}

function barTitle(attempt, now) {
  const took = duration((attempt.end ?? now) - attempt.start);
  return `${attempt.key} #${attempt.number}: ${attempt.outcome}, ${took}${attempt.reason ? `\n${attempt.reason}` : ""}`;
}

// Each worker's attempts in as many rows as ran at the same time.
function lanesOf(attempts, now) {
  const lanes = new Map();
  for (const attempt of [...attempts].sort((one, other) => one.start - other.start)) {
    if (!lanes.has(attempt.worker)) lanes.set(attempt.worker, { worker: attempt.worker, rows: [], busy: 0 });
    const lane = lanes.get(attempt.worker);
    const end = attempt.end ?? now;
    lane.busy += end - attempt.start;
    let row = lane.rows.find((one) => one.until <= attempt.start);
    if (!row) lane.rows.push((row = Object.assign([], { until: 0 })));
    row.push(attempt);
    row.until = end;
  }
  return [...lanes.values()].sort((one, other) => one.worker.localeCompare(other.worker));
}

function told(lane, from, to) {
  const share = (100 * lane.busy) / (lane.rows.length * (to - from));
  const count = lane.rows.reduce((sum, row) => sum + row.length, 0);
  return `${count.toLocaleString("en")} ${count === 1 ? "attempt" : "attempts"}, busy ${Math.round(Math.min(100, share))} %`;
}

// Bars of less than a pixel that touch and came to the same are one: no picture has more bars than pixels.
function merged(row, x, now) {
  const bars = [];
  for (const attempt of row) {
    const [left, right] = [x(attempt.start), x(attempt.end ?? now)];
    const last = bars[bars.length - 1];
    if (last && right - last.left < 1.5 && last.first.outcome === attempt.outcome) {
      last.right = right;
      last.count += 1;
    } else bars.push({ first: attempt, count: 1, left, right });
  }
  return bars;
}

function stepOf(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-3)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least) || 10 * power;
}
