// Makes elements. Text is always set as text, never as HTML: names, errors and prompts are users'.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

export function show(element, text) {
  if (!element) return;
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
}

export function badge(state) {
  return html("span", { class: `pl-badge s-${state}` }, state);
}

// How far something is, as a bar of its counts: {succeeded, failed, skipped, running} of `total`.
export function bar(counts, total) {
  const most = Math.max(total, 1);
  const parts = ["succeeded", "failed", "skipped", "running"].filter((state) => counts[state]);
  const told = parts.map((state) => `${counts[state].toLocaleString("en")} ${state}`).join(", ");
  return html(
    "span",
    { class: "pl-bar", role: "img", "aria-label": `${told || "nothing"} of ${total}`, title: told },
    ...parts.map((state) => html("i", { class: `s-${state}`, style: `width:${(100 * counts[state]) / most}%` })),
  );
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function clock(seconds) {
  const at = new Date(seconds * 1000);
  const sameDay = at.toDateString() === new Date().toDateString();
  return sameDay ? at.toLocaleTimeString() : at.toLocaleString();
}

export function shortened(text, longest) {
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`;
}

// Asks for JSON. What went wrong comes as an Error with a text for a person.
export async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { credentials: "same-origin", ...options });
  } catch {
    throw new Error("Flower does not answer.");
  }
  if (!(answer.headers.get("Content-Type") || "").startsWith("application/json")) {
    throw new Error(answer.redirected ? "You are logged out: load the page again." : `Flower answered ${answer.status}.`);
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || `Flower answered ${answer.status}.`);
  return told;
}
