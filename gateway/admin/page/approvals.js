// Approvals: packets that wait for somebody's yes, and the answer.

import { cell, count, el, moment, principal, reconcile, table } from "./dom.js";
import { Every, ask } from "./gateway.js";

const EVERY_MS = 1_000;

/** The view in `section`; `badge` tells in the tabs how many wait. */
export function approvals(section, app, badge) {
  const { whole, body } = table("Packets that wait for an approval", ["Packet", "Asks for", "Goes to", "Waits", "Answer"], { unseen: true, name: "approvals" });
  const empty = el("p", { class: "empty", text: "Nothing waits for an approval." });
  const note = el("p", { class: "soft note", text: "Approving lets the packet go on to its agent. Its caller is told why it was denied." });
  section.append(el("div", { class: "bar" }, el("h2", { id: "approvals-title", text: "Approvals" }), note), el("div", { class: "sheet" }, whole), empty);
  const every = new Every(EVERY_MS, refresh);
  let known = 0;

  async function refresh() {
    try {
      const { approvals: waiting } = await ask("approvals");
      const left = focused(waiting);
      whole.parentElement.hidden = waiting.length === 0;
      empty.hidden = waiting.length > 0;
      reconcile(body, waiting, (each) => each.id, row, update);
      // What the focus was on has been answered: on to the next, or to the heading of the page.
      if (left) (body.querySelector("button, input") ?? document.getElementById("main")).focus();
      if (waiting.length > known) app.announce(`${count(waiting.length)} ${waiting.length === 1 ? "packet waits" : "packets wait"} for an approval.`);
      known = waiting.length;
      app.trouble(null);
    } catch (error) {
      app.trouble(error);
    }
  }

  /** Whether the focus is on a packet that waits no more. */
  function focused(waiting) {
    const row = document.activeElement?.closest?.("tr");
    return Boolean(row && body.contains(row) && !waiting.some((each) => each.id === row.dataset.key));
  }

  function row(each) {
    return el("tr", { role: "row" },
      el("th", { role: "rowheader", scope: "row", "data-label": "Packet", class: "name" },
        principal(each.from), el("span", { class: "soft line", text: `packet ${each.flight_id}` }),
        each.conversation ? el("span", { class: "soft line", text: `conversation ${each.conversation}` }) : null,
        each.task ? el("span", { class: "soft line", text: `task ${each.task}` }) : null),
      cell("Asks for", {}, el("b", { text: each.capability }), el("span", { class: "soft line", text: `${each.policy} / ${each.rule}` }), each.reason ? el("span", { class: "line", text: each.reason }) : null),
      cell("Goes to", {}, el("b", { text: each.agent }), el("span", { class: "soft line", text: `offers ${each.agent_capabilities.join(", ")}` })),
      cell("Waits", {}, el("span", { class: "soft", text: "since " }), moment(each.time, { milliseconds: false }), el("span", { class: "soft line" }, "until ", moment(each.until, { milliseconds: false }))),
      cell("Answer", { class: "answer" }));
  }

  function update(element, each) {
    const place = element.querySelector(".answer");
    const now = String(app.operator());
    if (place.dataset.now === now) return;
    place.dataset.now = now;
    if (!app.operator()) {
      place.replaceChildren(el("span", { class: "soft", text: "Operators answer: sign in." }));
      return;
    }
    const what = `${each.capability} of ${each.flight_id}`;
    const why = el("input", { type: "text", "aria-label": `Why, for ${what}`, placeholder: "Why", maxlength: "500" });
    const button = (text, label, decision, scope) =>
      el("button", { type: "button", class: "small", "aria-label": `${label} ${what}`, text, on: { click: () => answer(each, decision, scope, why.value) } });
    place.replaceChildren(why, el("span", { class: "buttons" },
      button("Approve", "Approve", "approve", "packet"),
      each.conversation ? button("For the conversation", "Approve for the conversation", "approve", "conversation") : null,
      button("Deny", "Deny", "deny", "packet")));
  }

  async function answer(each, decision, scope, why) {
    const done = decision === "approve" ? `${each.flight_id} is approved.` : `${each.flight_id} is denied.`;
    await app.operate(`approvals/${encodeURIComponent(each.id)}`, done, { decision, scope, why });
    await refresh();
  }

  return {
    enter: () => every.start(),
    leave: () => every.stop(),
    again: () => refresh(),
    state(state) {
      const text = state.approvals ? ` (${count(state.approvals)})` : "";
      if (badge.textContent !== text) badge.textContent = text;
    },
  };
}
