// One node in detail: its attempts from the events, its error and Celery's tasks from the store.
import { ask, badge, byId, clock, duration, html } from "./dom.js";

export class NodeDetail {
  constructor(page, model, closed) {
    this.page = page;
    this.model = model;
    this.closed = closed;
    this.host = byId("node");
    this.node = null;
    this.told = {};
    this.shown = "";
  }

  open(node, focus = true) {
    this.node = node;
    this.told = {};
    this.shown = "";
    this.host.hidden = false;
    this.refresh(true);
    if (focus) {
      this.host.focus({ preventScroll: true });
      this.host.scrollIntoView({ block: "nearest" });
    }
  }

  close() {
    this.node = null;
    this.host.hidden = true;
    this.closed();
  }

  // Asks the store again when the node came to something else.
  async refresh(force = false) {
    if (!this.node) return;
    const node = this.node;
    const seen = `${node.key} ${this.model.stateOf(node)} ${node.attempt} ${JSON.stringify(node.counts)}`;
    if (!force && seen === this.shown) return;
    this.shown = seen;
    this.fill();
    try {
      const told = await ask(`${this.page.dataset.run}/node.json?key=${encodeURIComponent(node.key)}`);
      if (node === this.node) this.told = told;
    } catch (error) {
      if (node === this.node) this.told = { trouble: error.message };
    }
    if (node === this.node) this.fill();
  }

  fill() {
    const { node, told } = this;
    const attempts = this.model.attempts.filter((attempt) => attempt.node === node.id);
    const parts = [
      html("div", { class: "pl-card-head" },
        html("h2", { id: "node-title" }, node.id),
        html("button", { type: "button", class: "btn-close", "aria-label": "Close", onclick: () => this.close() })),
      html("p", {}, badge(this.model.stateOf(node)), node.key === node.id ? "" : html("code", {}, ` ${node.key}`)),
      ...this.error(told),
      node.isGroup ? this.members(node) : this.attempts(attempts),
      this.facts(told),
      this.tasks(told),
      told.trouble ? html("p", { class: "pl-trouble", role: "alert" }, told.trouble) : null,
    ];
    this.host.replaceChildren(...parts.filter((part) => part !== null));
  }

  *error(told) {
    if (!told.error) {
      if (this.node.reason) yield html("p", { class: "pl-reason" }, this.node.reason);
      return;
    }
    yield html("p", { class: "pl-reason" }, html("b", {}, told.error.type), ": ", told.error.message);
    if (told.error.traceback) {
      yield html("details", {}, html("summary", {}, "Traceback"), html("pre", { tabindex: "0" }, told.error.traceback));
    }
  }

  members(group) {
    const counts = Object.entries(this.model.countsOf(group)).filter(([, count]) => count);
    return html("p", {}, ...counts.flatMap(([state, count]) => [badge(state), ` ${count.toLocaleString("en")}  `]));
  }

  attempts(attempts) {
    if (!attempts.length) return html("p", { class: "pl-hint" }, "It has not run.");
    return html("div", { class: "pl-scroll" }, html("table", { class: "pl-table", id: "attempts" },
      html("thead", {}, html("tr", {}, ...["#", "Came to", "Started", "Took", "Waited", "Worker"].map((name) => html("th", { scope: "col" }, name)))),
      html("tbody", {}, ...attempts.slice(-50).flatMap((attempt) => rows(attempt)))));
  }

  facts(told) {
    const found = Object.entries(told.options || {});
    if (told.losses) found.push(["lost", `${told.losses} ×`]);
    if (told.retries) found.push(["retried", `${told.retries} ×`]);
    if (told.cycle) found.push(["cycle", told.cycle]);
    if (!found.length) return null;
    return html("dl", { class: "pl-options" }, ...found.flatMap(([name, value]) => [html("dt", {}, name), html("dd", {}, String(value))]));
  }

  // Flower has pages of the tasks that it heard of; of others only the id is told.
  tasks(told) {
    if (!told.celery?.length) return null;
    const base = this.page.dataset.task.replace(/-$/, "");
    return html("div", {}, html("h3", {}, "Celery tasks"), html("ul", { class: "pl-tasks" },
      ...told.celery.slice(-50).map((task) => html("li", {},
        task.attempt ? `#${task.attempt} ` : "barrier ",
        task.known ? html("a", { href: base + encodeURIComponent(task.id) }, task.id)
          : html("code", { title: "Flower has not heard of it" }, task.id)))));
  }
}

function rows(attempt) {
  const took = attempt.end === null ? "" : duration(attempt.end - attempt.start);
  const waited = attempt.queued ? duration(attempt.start - attempt.queued) : "";
  const made = [html("tr", {}, html("td", {}, String(attempt.number)), html("td", {}, badge(attempt.outcome)),
    html("td", {}, clock(attempt.start)), html("td", {}, took), html("td", {}, waited), html("td", {}, attempt.worker))];
  if (attempt.reason) made.push(html("tr", {}, html("td", {}), html("td", { colspan: "5", class: "pl-why" }, attempt.reason)));
  return made;
}
