// Draws the graph as SVG, and colours it anew as the run goes on.
import { html, shortened, svg } from "./dom.js";
import { isDrawnOpen, layers, place, windowOf } from "./layout.js";

const MARGIN = 10;
const LONGEST = 21;
const COUNTED = ["succeeded", "failed", "skipped", "running"];

export class Graph {
  constructor(host, tools, model, selected) {
    this.host = host;
    this.tools = tools;
    this.model = model;
    this.selected = selected; // called with the node that a person wants to see
    this.opened = new Map();
    this.first = 0;
    this.chosen = "";
    this.drawn = new Map();
    this.version = -1;
  }

  refresh() {
    if (this.version !== this.model.version) {
      this.draw();
      return;
    }
    for (const id of this.model.dirty) this.colour(this.drawn.get(id));
  }

  draw() {
    const held = this.host.contains(document.activeElement) ? this.chosen : "";
    this.version = this.model.version;
    const outermost = [...this.model.nodes.values()].filter((node) => !this.model.nodes.has(node.group));
    const all = layers(outermost);
    this.first = Math.min(this.first, Math.max(0, all.length - 1));
    const last = windowOf(all, this.first, this.opened);
    const { placed, width, height } = place(all.slice(this.first, last), this.opened);
    this.drawn = new Map();
    const picture = svg("svg", {
      width: width + 2 * MARGIN,
      height: height + 2 * MARGIN,
      viewBox: `${-MARGIN} ${-MARGIN} ${width + 2 * MARGIN} ${height + 2 * MARGIN}`,
      role: "group",
      "aria-label": "Graph of the run",
      onkeydown: (event) => this.key(event),
    });
    picture.append(svg("defs", {}, arrow()));
    const edges = svg("g", { class: "pl-edges", "aria-hidden": "true" });
    const boxes = svg("g", {});
    for (const box of placed) boxes.append(box.more ? more(box) : this.box(box));
    for (const box of placed) if (box.node) edges.append(...this.edges(box));
    picture.append(edges, boxes);
    this.host.replaceChildren(picture);
    this.pages(all.length, last);
    const first = this.drawn.get(this.chosen) || this.drawn.values().next().value;
    first?.shape.setAttribute("tabindex", "0");
    if (held) this.drawn.get(held)?.shape.focus();
  }

  // Which layers are drawn, where not all are.
  pages(count, last) {
    if (this.first === 0 && last >= count) {
      this.tools.replaceChildren();
      return;
    }
    const step = (text, target, enabled) =>
      html("button", { type: "button", class: "btn btn-sm btn-outline-secondary", disabled: !enabled,
        onclick: () => { this.first = Math.max(0, target); this.draw(); } }, text);
    this.starts = this.starts || [];
    const back = this.starts.filter((start) => start < this.first).pop() ?? 0;
    if (!this.starts.includes(this.first)) this.starts = [...this.starts, this.first].sort((a, b) => a - b);
    this.tools.replaceChildren(
      step("Earlier", back, this.first > 0),
      html("span", {}, ` layers ${this.first + 1}–${last} of ${count} `),
      step("Later", last, last < count),
    );
  }

  box(box) {
    const { node, x, y, width, height, kind } = box;
    const shape = svg("g", { class: `pl-box k-${kind}`, tabindex: "-1", role: "button",
      transform: `translate(${x} ${y})`, onclick: (event) => this.choose(node, event) });
    const drawn = { ...box, shape, title: svg("title") };
    shape.append(drawn.title, svg("rect", { width, height, rx: kind === "cell" ? 2 : 7 }));
    if (kind === "task") {
      shape.append(svg("text", { x: 12, y: height / 2 + 4 }, shortened(node.id, LONGEST)));
    } else if (kind !== "cell") {
      const sign = isDrawnOpen(node, this.opened) ? "▾" : "▸";
      const toggle = svg("g", { class: "pl-toggle", onclick: (event) => this.toggle(node, event) },
        svg("rect", { x: 2, y: 2, width: 22, height: 22 }), svg("text", { x: 8, y: 18 }, node.members.length ? sign : ""));
      drawn.counted = svg("text", { class: "pl-counted", x: kind === "open" ? width - 10 : 12, y: kind === "open" ? 18 : 34,
        "text-anchor": kind === "open" ? "end" : "start" });
      shape.append(toggle, svg("text", { x: 26, y: 18 }, shortened(node.id, kind === "open" ? Math.max(8, width / 8 - 16) : 17)),
        drawn.counted);
      if (kind === "folded") {
        drawn.parts = COUNTED.map((state) => svg("rect", { class: `pl-part s-${state}`, y: height - 10, height: 4 }));
        shape.append(svg("rect", { class: "pl-track", x: 12, y: height - 10, width: width - 24, height: 4 }), ...drawn.parts);
      }
    }
    this.drawn.set(node.id, drawn);
    this.colour(drawn);
    return shape;
  }

  colour(drawn) {
    if (!drawn) return;
    const { node, shape, kind } = drawn;
    const state = this.model.stateOf(node);
    const chosen = node.id === this.chosen ? " chosen" : "";
    shape.setAttribute("class", `pl-box k-${kind} s-${state}${chosen}`);
    let told = `${node.id}: ${state}`;
    if (node.attempt > 1) told += `, attempt ${node.attempt}`;
    if (drawn.counted) {
      const counts = this.model.countsOf(node);
      const total = this.model.totalOf(node);
      const done = (counts.succeeded || 0) + (counts.failed || 0) + (counts.skipped || 0);
      const text = total ? `${done}/${total}${counts.failed ? `, ${counts.failed} failed` : ""}` : node.map ? "items unknown yet" : "";
      drawn.counted.textContent = kind === "open" && drawn.width < 60 + 8 * (node.id.length + text.length) ? "" : text;
      told += `, group, ${text}`;
      this.fill(drawn, counts, total);
    }
    drawn.title.textContent = told;
    shape.setAttribute("aria-label", told);
  }

  fill(drawn, counts, total) {
    let x = 12;
    (drawn.parts || []).forEach((part, index) => {
      const width = total ? ((drawn.width - 24) * (counts[COUNTED[index]] || 0)) / total : 0;
      part.setAttribute("x", x);
      part.setAttribute("width", width);
      x += width;
    });
  }

  *edges(box) {
    for (const [targets, kind] of [[box.node.next, "pl-edge"], [box.node.loops, "pl-edge pl-loop"]]) {
      for (const id of targets) {
        const to = this.drawn.get(id);
        if (to && box.kind !== "cell" && to.kind !== "cell") {
          yield svg("path", { class: kind, d: kind === "pl-edge" ? line(box, to) : loop(box, to), "marker-end": "url(#pl-arrow)" });
        }
      }
    }
  }

  choose(node, event) {
    event?.stopPropagation();
    this.mark(node.id);
    this.selected(node);
  }

  mark(id) {
    const before = this.drawn.get(this.chosen);
    this.chosen = id;
    for (const drawn of [before, this.drawn.get(id)]) this.colour(drawn);
    for (const drawn of this.drawn.values()) drawn.shape.setAttribute("tabindex", "-1");
    (this.drawn.get(id) || this.drawn.values().next().value)?.shape.setAttribute("tabindex", "0");
  }

  toggle(node, event) {
    event?.stopPropagation();
    this.opened.set(node.id, !isDrawnOpen(node, this.opened));
    this.chosen = node.id;
    this.draw();
  }

  key(event) {
    const all = [...this.drawn.values()];
    const at = all.findIndex((drawn) => drawn.shape === document.activeElement);
    if (at < 0) return;
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      const to = all[Math.min(all.length - 1, Math.max(0, at + step))];
      all[at].shape.setAttribute("tabindex", "-1");
      to.shape.setAttribute("tabindex", "0");
      to.shape.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      const { node } = all[at];
      if (node.isGroup) this.toggle(node);
      this.choose(node);
      this.drawn.get(node.id)?.shape.focus();
    } else return;
    event.preventDefault();
  }
}

function arrow() {
  return svg("marker", { id: "pl-arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    svg("path", { d: "M0 0 L8 4 L0 8 z" }));
}

function line(from, to) {
  const [x1, y1] = [from.x + from.width, from.y + from.height / 2];
  const [x2, y2] = [to.x, to.y + to.height / 2];
  const bend = Math.max(20, (x2 - x1) / 2);
  return `M${x1} ${y1} C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

function loop(from, to) {
  const [x1, y1] = [from.x + from.width / 2, from.y + from.height];
  const [x2, y2] = [to.x + to.width / 2 - (from.node === to.node ? 30 : 0), to.y + to.height];
  const low = Math.max(y1, y2) + 34;
  return `M${x1} ${y1} C${x1} ${low} ${x2} ${low} ${x2} ${y2}`;
}

function more(box) {
  return svg("text", { class: "pl-counted", x: box.x + 12, y: box.y + 22 }, `… and ${box.more.toLocaleString("en")} more, see Nodes`);
}
