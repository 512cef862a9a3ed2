// What the run's tasks ask of people, with a form for each answer.
import { html } from "./dom.js";

const LONGEST_OPTIONS = 100;

export class Asks {
  constructor(host, mayAct, send) {
    this.host = host;
    this.mayAct = mayAct;
    this.send = send;
    this.shown = "";
  }

  // Forms stay as they are while the same is asked: somebody may be typing.
  refresh(asks) {
    const seen = JSON.stringify(asks);
    if (seen === this.shown) return;
    this.shown = seen;
    this.host.replaceChildren(...asks.map((asked) => this.form(asked)));
  }

  form(asked) {
    const form = html("form", { class: "pl-ask", "aria-label": `Question of ${asked.task}` },
      html("p", {}, html("b", {}, asked.task), asked.late ? " still asks: " : " asks: ", asked.prompt));
    if (!this.mayAct) return form;
    form.append(...fields(asked));
    if (asked.type !== "approval") form.append(html("button", { class: "btn btn-sm btn-primary" }, "Answer"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const told = new URLSearchParams(new FormData(form, event.submitter));
      told.set("request", asked.id);
      told.set("type", asked.type);
      this.send("answer", told);
    });
    return form;
  }
}

function fields(asked) {
  const label = "Your answer";
  const option = (type) => asked.options.slice(0, LONGEST_OPTIONS).map((text, index) =>
    html("label", {}, html("input", { type, name: "value", value: text, required: type === "radio" && index === 0 }), " ", text));
  switch (asked.type) {
    case "approval":
      return [
        html("input", { name: "reason", class: "form-control form-control-sm", placeholder: "reason, if you like", "aria-label": "Reason" }),
        html("button", { name: "value", value: "yes", class: "btn btn-sm btn-success" }, "Approve"),
        html("button", { name: "value", value: "no", class: "btn btn-sm btn-outline-danger" }, "Reject"),
      ];
    case "selection":
      return option("radio");
    case "multi_selection":
      return option("checkbox");
    case "custom":
      return [html("textarea", { name: "value", rows: "3", class: "form-control", "aria-label": `${label}, as JSON`, placeholder: "JSON" })];
    default:
      return [html("input", { name: "value", required: true, class: "form-control form-control-sm", "aria-label": label })];
  }
}
