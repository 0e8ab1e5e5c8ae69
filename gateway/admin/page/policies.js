// Policies: what their rules decided, and what shadow policies would have.

import { cell, count, el, moment, reconcile, sign, table } from "./dom.js";
import { Every, ask } from "./gateway.js";

const EVERY_MS = 3_000;

/** The view in `section`. */
export function policies(section, app) {
  const refusals = el("p", { class: "soft note" });
  const list = el("div", { class: "policies" });
  const empty = el("p", { class: "empty", text: "There is no policy, so nothing is let through." });
  section.append(el("div", { class: "bar" }, el("h2", { id: "policies-title", text: "Policies" }), refusals), list, empty);
  const every = new Every(EVERY_MS, refresh);

  async function refresh() {
    try {
      const answer = await ask("policies");
      empty.hidden = answer.policies.length > 0;
      refusals.textContent = `${count(answer.default_refusals)} refused because no policy allowed it.`;
      reconcile(list, answer.policies, (policy) => policy.name, card, update);
      app.trouble(null);
    } catch (error) {
      app.trouble(error);
    }
  }

  function card(policy) {
    const { whole } = table(`Rules of ${policy.name}`, ["Rule", "Effect", ["Decided", "number"], ["In shadow", "number"], "Last"], { unseen: true, name: "rules" });
    return el("article", { class: "sheet policy", "aria-label": `Policy ${policy.name}` }, el("header", {}), whole);
  }

  function update(element, policy) {
    const head = JSON.stringify([policy.mode, policy.file, policy.capabilities]);
    if (element.dataset.head !== head) {
      element.dataset.head = head;
      element.querySelector("header").replaceChildren(
        el("h3", {}, policy.name, policy.mode === "shadow" ? el("span", { class: "tag", text: "shadow", title: "It is held against packets, and decides nothing." }) : ""),
        el("p", { class: "soft" }, `speaks about ${(policy.capabilities ?? []).join(", ")}`, policy.file ? el("span", { title: policy.file, text: ` · ${policy.file.split("/").slice(-2).join("/")}` }) : ""));
    }
    reconcile(element.querySelector("tbody"), policy.rules, (rule) => rule.name, row, fill);
  }

  function row(rule) {
    return el("tr", { role: "row" }, el("th", { role: "rowheader", scope: "row", "data-label": "Rule", class: "name", text: rule.name }),
      cell("Effect", { class: "effect" }), cell("Decided", { class: "number hits" }), cell("In shadow", { class: "number shadow" }), cell("Last", { class: "last" }));
  }

  function fill(element, rule) {
    const effect = element.querySelector(".effect");
    if (effect.dataset.now !== rule.effect) {
      effect.dataset.now = rule.effect;
      effect.replaceChildren(el("span", { class: `mark mark-${rule.effect}` }, sign(rule.effect), el("span", { text: rule.effect })));
    }
    element.querySelector(".hits").textContent = rule.hits ? count(rule.hits) : "–";
    element.querySelector(".shadow").textContent = rule.shadow_hits ? count(rule.shadow_hits) : "–";
    element.querySelector(".last").replaceChildren(moment(rule.last_hit, { milliseconds: false }));
  }

  return { enter: () => every.start(), leave: () => every.stop(), again: () => refresh() };
}
