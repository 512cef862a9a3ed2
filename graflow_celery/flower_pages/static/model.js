// What a run has come to: its graph, and its events in their order, make the state of every node and all attempts.

export const STATES = ["waiting", "queued", "running", "asking", "succeeded", "failed", "skipped", "unfinished"];
const FINAL = new Set(["succeeded", "failed", "skipped"]);
const AGAIN = new Set(["retried", "lost", "returned"]);
const ENDS = new Set(["succeeded", "failed", "cancelled", "terminated"]);
const ITEM = /^(.+)\[(\d+)\]$/s;
export const ADDED = "added while it ran";

function numberOf(member) {
  return Number(ITEM.exec(member.id)[2]);
}

export class Model {
  constructor(graph) {
    this.nodes = new Map();
    this.attempts = [];
    this.version = 0; // changes when nodes came to it
    this.ended = false;
    this.dirty = new Set();
    this.open = new Map();
    this.ends = new Map();
    for (const told of graph.nodes) this.add(told);
    for (const node of this.nodes.values()) this.nodes.get(node.group)?.members.push(node);
  }

  add(told) {
    const node = {
      id: told.id,
      key: told.id,
      next: told.next || [],
      loops: told.loops || [],
      group: told.group || null,
      isGroup: Boolean(told.is_group),
      map: Boolean(told.map),
      members: [],
      counts: {},
      state: "waiting",
      attempt: 0,
      worker: "",
      started: null,
      duration: null,
      reason: "",
    };
    this.nodes.set(node.id, node);
    this.version += 1;
    return node;
  }

  // The node of an event: one that the graph does not have is an item of a mapped task, or was added.
  node(id) {
    const known = this.nodes.get(id);
    if (known) return known;
    const base = this.nodes.get(ITEM.exec(id)?.[1]);
    let group = base?.map ? base : this.nodes.get(ADDED);
    if (!group) group = this.add({ id: ADDED, is_group: true });
    const node = this.add({ id, group: group.id });
    group.members.push(node);
    if (group === base) group.members.sort((one, other) => numberOf(one) - numberOf(other));
    this.count(node, null, "waiting");
    return node;
  }

  stateOf(node) {
    return this.ended && ["queued", "running", "asking"].includes(node.state) ? "unfinished" : node.state;
  }

  // Of a group: how many tasks inside of it are in a state, those inside of groups in it too.
  countsOf(group) {
    const counts = { ...group.counts };
    if (this.ended) {
      for (const state of ["queued", "running", "asking"]) {
        counts.unfinished = (counts.unfinished || 0) + (counts[state] || 0);
        delete counts[state];
      }
    }
    return counts;
  }

  totalOf(group) {
    return Object.values(group.counts).reduce((sum, count) => sum + count, 0);
  }

  begin() {
    for (const node of this.nodes.values()) this.count(node, null, node.state);
  }

  count(node, before, after) {
    if (node.isGroup) return;
    for (let group = this.nodes.get(node.group); group; group = this.nodes.get(group.group)) {
      if (before) group.counts[before] -= 1;
      group.counts[after] = (group.counts[after] || 0) + 1;
      this.dirty.add(group.id);
    }
  }

  become(node, state) {
    if (node.state !== state) {
      this.count(node, node.state, state);
      node.state = state;
    }
    this.dirty.add(node.id);
  }

  feed(event) {
    const [kind, ...rest] = event.e.split("_");
    const verb = rest.join("_");
    if (kind === "run") this.run(verb, event);
    else if (event.k && ["node", "group", "feedback"].includes(kind)) this.step(kind, verb, event);
  }

  run(verb, event) {
    if (verb === "retried") {
      this.ended = false;
      for (const node of this.nodes.values()) {
        if (["failed", "queued", "running", "asking"].includes(node.state)) this.become(node, "waiting");
      }
    } else if (ENDS.has(verb)) {
      this.ended = true;
      for (const attempt of this.open.values()) this.close(attempt, event.t, "unfinished", "the run ended");
    }
    for (const node of this.nodes.values()) this.dirty.add(node.id);
  }

  step(kind, verb, event) {
    const node = this.node(event.n);
    node.key = event.k;
    if (event.a) node.attempt = event.a;
    if (event.w) node.worker = event.w;
    const open = this.open.get(event.k);
    if (kind === "feedback") {
      if (verb === "requested") {
        this.close(open, event.t, "asking", "it asked a person");
        this.become(node, "asking");
      } else if (verb === "answered") this.become(node, "queued");
      return;
    }
    if (verb === "queued") {
      node.queuedAt = event.t;
      this.become(node, "queued");
    } else if (verb === "opened") {
      node.started = event.t;
      this.become(node, "running");
      this.queue(node, event.t);
    } else if (verb === "started") {
      this.close(open, event.t, "unfinished", "another attempt began");
      node.started = event.t;
      node.duration = null;
      this.start(node, event);
      this.become(node, "running");
    } else if (AGAIN.has(verb)) {
      node.reason = event.r || "";
      this.close(open, event.t, verb, node.reason, event.d);
      node.queuedAt = event.t;
      this.become(node, "queued");
    } else if (verb === "iterated") {
      this.close(open, event.t, "succeeded", "", event.d);
      this.become(node, "queued");
    } else if (FINAL.has(verb)) {
      if (verb === "skipped" && FINAL.has(node.state)) return;
      node.reason = event.r || "";
      node.duration = event.d ?? (node.started ? event.t - node.started : null);
      if (open) this.close(open, event.t, verb, node.reason, event.d);
      else if (verb === "failed" && !node.isGroup && event.a) {
        this.attempts.push(this.attempt(node, event, { end: event.t, outcome: verb, reason: node.reason }));
      }
      this.become(node, verb);
    }
  }

  // With a group, what it starts with is on its way: the events do not say so of each.
  queue(group, at) {
    for (const member of group.members) {
      if (member.state !== "waiting" || group.members.some((other) => other.next.includes(member.id))) continue;
      member.queuedAt = at;
      if (member.isGroup) member.started = at;
      this.become(member, member.isGroup ? "running" : "queued");
      if (member.isGroup) this.queue(member, at);
    }
  }

  attempt(node, event, rest) {
    const number = event.a || 1;
    return { node: node.id, key: event.k, number, worker: event.w || "?", start: event.t, ...rest };
  }

  start(node, event) {
    const attempt = this.attempt(node, event, { end: null, outcome: "running", reason: "", queued: node.queuedAt });
    this.attempts.push(attempt);
    this.open.set(event.k, attempt);
  }

  // Attempts of one message get leave together and are told together, and ran one after the other in between.
  close(attempt, at, outcome, reason, took) {
    if (!attempt) return;
    const together = `${attempt.start} ${attempt.worker}`;
    const start = Math.min(at, Math.max(attempt.start, this.ends.get(together) ?? 0));
    const end = took === undefined ? at : Math.min(at, start + took);
    this.ends.set(together, end);
    Object.assign(attempt, { start, end, outcome, reason });
    this.open.delete(attempt.key);
  }
}
