// The page of a run: asks for what is new, and hands it to what is shown.
import { Asks } from "./asks.js";
import { ask, badge, bar, byId, clock, duration, html, show } from "./dom.js";
import { Graph } from "./graph.js";
import { ADDED, Model, STATES } from "./model.js";
import { NodeDetail } from "./node.js";
import { Timeline } from "./timeline.js";

const EVERY = 1000;
const EVERY_ENDED = 5000;
const LOOK_EVERY = 5; // asks what keeps the run from moving
const NODES = 100;
const page = byId("run-page");
const mayAct = Boolean(page.dataset.mayAct);
const ENDED = new Set(["succeeded", "failed", "cancelled", "terminated"]);

class Page {
  constructor(graph) {
    this.model = new Model(graph);
    this.model.begin();
    this.detail = new NodeDetail(page, this.model, () => this.closed());
    const chosen = (node) => this.choose(node);
    this.graph = new Graph(byId("graph"), byId("graph-tools"), this.model, chosen);
    this.timeline = new Timeline(byId("timeline"), byId("timeline-tools"), this.model, chosen);
    this.asks = new Asks(byId("asks"), mayAct, (action, body) => this.act(action, body));
    this.cursor = "";
    this.polls = 0;
    this.told = null;
    this.missing = graph.missing || "";
    for (const state of STATES) byId("nodes-state").append(html("option", { value: state }, state));
    for (const id of ["nodes-text", "nodes-state"]) byId(id).addEventListener("input", () => this.list());
    byId("cancel")?.addEventListener("click", () => this.cancel());
    byId("retry")?.addEventListener("click", () => this.act("retry"));
    window.addEventListener("resize", () => this.drawTimeline());
  }

  choose(node, focus = true) {
    if (!node || node.id === ADDED) return;
    this.graph.mark(node.id);
    this.detail.open(node, focus);
    history.replaceState(null, "", `#${encodeURIComponent(node.id)}`);
    this.drawTimeline(); // it has less room now
  }

  closed() {
    this.graph.mark("");
    this.drawTimeline();
  }

  async poll() {
    clearTimeout(this.timer);
    let wait = EVERY;
    try {
      if (!document.hidden || !this.told) wait = await this.advance();
      show(byId("trouble"), this.missing);
    } catch (error) {
      show(byId("trouble"), error.message);
      wait = EVERY_ENDED;
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.poll(), wait);
  }

  async advance() {
    let count = 0;
    const look = this.polls++ % LOOK_EVERY === 1 ? "1" : "";
    let told;
    do {
      told = await ask(`${page.dataset.run}/changes.json?after=${this.cursor}&look=${look}`);
      this.cursor = told.cursor;
      for (const event of told.events) this.model.feed(event);
      count += told.events.length;
    } while (told.more);
    if (look) show(byId("obstacle"), told.obstacle);
    const first = this.told === null;
    this.told = told;
    this.head();
    if (count || first) {
      this.graph.refresh();
      this.list();
      this.model.dirty.clear();
    }
    if (count || first || !this.ended) this.drawTimeline();
    this.asks.refresh(told.asks);
    if (first) this.fromAddress();
    await this.detail.refresh();
    return this.ended ? EVERY_ENDED : EVERY;
  }

  get ended() {
    return ENDED.has(this.told.status);
  }

  fromAddress() {
    const id = decodeURIComponent(location.hash.slice(1));
    if (this.model.nodes.has(id)) this.choose(this.model.nodes.get(id), false);
  }

  head() {
    const { told } = this;
    const status = byId("status");
    if (status.textContent !== told.status) {
      status.textContent = told.status;
      status.className = `pl-badge s-${told.status}`;
    }
    const counts = {};
    let total = 0;
    for (const node of this.model.nodes.values()) {
      if (node.isGroup) continue;
      const state = this.model.stateOf(node);
      counts[state] = (counts[state] || 0) + 1;
      total += 1;
    }
    const seconds = (told.finished ?? told.now) - told.started;
    show(byId("facts"), `started ${clock(told.started)}, ${told.finished ? "took" : "for"} ${duration(seconds)}`);
    const words = STATES.filter((state) => counts[state]).map((state) => `${counts[state].toLocaleString("en")} ${state}`);
    byId("progress").replaceChildren(bar(counts, total), html("span", {}, words.join(", ")));
    show(byId("reason"), told.reason);
    if (!mayAct) return;
    byId("cancel").hidden = this.ended;
    byId("retry").hidden = !["failed", "cancelled", "terminated"].includes(told.status);
  }

  drawTimeline() {
    if (this.told) this.timeline.draw(this.told.started, this.told.finished ?? this.told.now);
  }

  list() {
    const text = byId("nodes-text").value.toLowerCase();
    const state = byId("nodes-state").value;
    const found = [...this.model.nodes.values()].filter(
      (node) => node.id.toLowerCase().includes(text) && (!state || this.model.stateOf(node) === state),
    );
    const held = byId("nodes").contains(document.activeElement) ? document.activeElement.textContent : "";
    byId("nodes").tBodies[0].replaceChildren(...found.slice(0, NODES).map((node) => this.row(node)));
    if (held) [...byId("nodes").querySelectorAll("button")].find((one) => one.textContent === held)?.focus();
    const more = found.length - NODES;
    byId("nodes-more").textContent = more > 0 ? `… and ${more.toLocaleString("en")} more: narrow them down by name or state.` : "";
  }

  row(node) {
    return html("tr", {},
      html("td", {}, html("button", { type: "button", class: "pl-link", onclick: () => this.choose(node) }, node.id)),
      html("td", {}, badge(this.model.stateOf(node))),
      html("td", { class: "pl-number" }, node.attempt ? String(node.attempt) : ""),
      html("td", { class: "pl-number" }, duration(node.duration)),
      html("td", {}, node.isGroup ? "" : node.worker));
  }

  cancel() {
    if (window.confirm("Cancel this run? Nothing of it starts any more.")) this.act("cancel");
  }

  async act(action, body = new URLSearchParams()) {
    body.set("_xsrf", page.querySelector("input[name=_xsrf]").value);
    try {
      const told = await ask(`${page.dataset.run}/${action}`, { method: "POST", body });
      byId("said").textContent = told.said;
    } catch (error) {
      byId("said").textContent = error.message;
    }
    await this.poll();
  }
}

async function start() {
  try {
    const shown = new Page(await ask(`${page.dataset.run}/graph.json`));
    await shown.poll();
  } catch (error) {
    show(byId("trouble"), error.message);
    setTimeout(start, EVERY_ENDED);
  }
}

start();
