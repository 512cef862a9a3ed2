// The list of runs: filters live in the address, so that it can be sent and gone back to.
import { ask, badge, bar, byId, clock, duration, html, shortened, show } from "./dom.js";

const EVERY = 3000;
const page = byId("runs-page");
const form = byId("filters");
const body = byId("runs").tBodies[0];
let asked = 0;
let last = "";

function address() {
  return new URLSearchParams(location.search);
}

function go(query, replace = false) {
  const text = query.toString();
  history[replace ? "replaceState" : "pushState"](null, "", text ? `?${text}` : location.pathname);
  refresh();
}

function row(run, now) {
  const seconds = (run.finished ?? now) - run.started;
  const done = (run.succeeded + run.failed + run.skipped).toLocaleString("en");
  const told = `${done} of ${run.total.toLocaleString("en")}`;
  const link = page.dataset.run.replace(/-$/, "") + encodeURIComponent(run.run);
  return html(
    "tr",
    {},
    html("td", {}, html("a", { href: link }, html("b", {}, run.workflow || "—"), html("code", {}, run.run))),
    html("td", {}, badge(run.status)),
    html(
      "td",
      {},
      bar(run, run.total),
      html("small", {}, told, run.failed ? html("b", {}, ` · ${run.failed.toLocaleString("en")} failed`) : null),
    ),
    html("td", { class: "pl-time", title: new Date(run.started * 1000).toString() }, clock(run.started)),
    html("td", { class: "pl-number" }, duration(seconds)),
    html("td", { class: "pl-why", title: run.reason }, shortened(run.reason, 120)),
  );
}

function fill(told) {
  const select = form.elements.workflow;
  const known = new Set([...select.options].map((option) => option.value));
  for (const name of [...told.workflows, address().get("workflow") || ""]) {
    if (!known.has(name)) select.append(html("option", { value: name }, name));
    known.add(name);
  }
  for (const name of ["text", "workflow", "state"]) {
    const field = form.elements[name];
    if (document.activeElement !== field) field.value = address().get(name) || "";
  }
}

async function refresh() {
  const mine = ++asked;
  try {
    const told = await ask(`${page.dataset.runs}?${address()}`);
    if (mine !== asked) return;
    show(byId("trouble"), "");
    fill(told);
    const focused = document.activeElement?.getAttribute("href");
    body.replaceChildren(...told.runs.map((run) => row(run, told.now)));
    if (focused) [...body.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
    byId("empty").hidden = told.runs.length > 0;
    byId("older").disabled = !told.more;
    byId("newest").disabled = !address().get("after");
    byId("cut").hidden = !told.cut;
    last = told.runs.length ? told.runs[told.runs.length - 1].run : "";
  } catch (error) {
    if (mine === asked) show(byId("trouble"), error.message);
  }
}

function filter() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value.trim()) query.set(name, value.trim());
  go(query, true);
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
byId("older").addEventListener("click", () => {
  const query = address();
  query.set("after", last);
  go(query);
});
byId("newest").addEventListener("click", () => {
  const query = address();
  query.delete("after");
  go(query);
});
window.addEventListener("popstate", refresh);
setInterval(() => {
  if (!document.hidden) refresh();
}, EVERY);
refresh();
