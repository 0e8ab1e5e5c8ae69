// Conversations: the latest, and of one all handoffs as a tree of parents, in time.

import { cell, count, draw, duration, el, facts, mark, moment, orNone, principal, reconcile, table } from "./dom.js";
import { Every, ask } from "./gateway.js";

const EVERY_MS = 3_000;
const MAX_ROWS = 200;
const MAX_NODES = 500;

/** The view in `section`. */
export function conversations(section, app) {
  const { whole, body } = table("Conversations, the newest first", ["Conversation", ["Handoffs", "number"], ["Refused", "number"], ["Open", "number"], "Last"], { unseen: true, name: "conversations" });
  const empty = el("p", { class: "empty", text: "No conversation yet: packets that carry flight-conversation appear here." });
  const tree = el("div", { class: "sheet tree", "aria-live": "off" });
  const look = el("form", { class: "inline-form", role: "search", "aria-label": "Find a conversation or task", on: { submit: find } },
    el("label", { class: "inline" }, el("select", { name: "kind", "aria-label": "Kind" }, el("option", { value: "conversations", text: "Conversation" }), el("option", { value: "tasks", text: "Task" })), " ",
      el("input", { name: "id", "aria-label": "Id", placeholder: "id", autocomplete: "off", spellcheck: "false", required: true })),
    el("button", { type: "submit", text: "Show" }));
  section.append(el("div", { class: "bar" }, el("h2", { id: "conversations-title", text: "Conversations" }), look),
    el("div", { class: "list-and-one" }, el("div", { class: "sheet list" }, whole, empty), tree));

  const every = new Every(EVERY_MS, refresh);
  let chosen = "";
  let kind = "conversations";
  let drawn = "";

  function find(event) {
    event.preventDefault();
    app.navigate("conversations", { id: look.elements.id.value.trim(), kind: look.elements.kind.value === "tasks" ? "tasks" : "" });
  }

  async function refresh() {
    try {
      const { conversations: latest } = await ask("conversations");
      empty.hidden = latest.length > 0;
      reconcile(body, latest.slice(0, MAX_ROWS), (each) => each.id, row, update);
      if (!chosen && latest.length) {
        chosen = latest[0].id;
        kind = "conversations";
      }
      for (const each of body.children) each.classList.toggle("chosen", kind === "conversations" && each.dataset.key === chosen);
      app.trouble(null);
    } catch (error) {
      app.trouble(error);
    }
    await one();
  }

  function row(each) {
    return el("tr", { role: "row", on: { click: (event) => !event.target.closest("a") && event.currentTarget.querySelector("a").click() } },
      el("th", { role: "rowheader", scope: "row", "data-label": "Conversation", class: "name" },
        el("a", { href: app.link({ id: each.id }, "conversations"), text: each.id }), el("span", { class: "soft caps" })),
      cell("Handoffs", { class: "number handoffs" }), cell("Refused", { class: "number refused" }), cell("Open", { class: "number open" }), cell("Last", { class: "last" }));
  }

  function update(element, each) {
    const put = (name, text) => { element.querySelector(`.${name}`).textContent = text; };
    put("caps", (each.capabilities ?? []).join(", "));
    put("handoffs", count(each.handoffs));
    put("refused", each.refused ? count(each.refused) : "–");
    put("open", each.open ? count(each.open) : "–");
    const last = element.querySelector(".last");
    if (last.dataset.now !== String(each.last)) {
      last.dataset.now = String(each.last);
      last.replaceChildren(moment(each.last, { milliseconds: false }));
    }
  }

  async function one() {
    if (!chosen) {
      tree.replaceChildren(el("p", { class: "empty", text: "Choose a conversation." }));
      return;
    }
    const asked = `${kind}/${chosen}`;
    let now;
    try {
      now = await ask(`${kind}/${encodeURIComponent(chosen)}`);
    } catch (error) {
      now = { error: error.message };
    }
    if (asked !== `${kind}/${chosen}` || drawn === asked + JSON.stringify(now)) return;
    const focused = tree.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    drawn = asked + JSON.stringify(now);
    tree.replaceChildren(...(now.error ? [el("p", { class: "empty", text: now.error })] : described(now)));
    if (focused) tree.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  function described(now) {
    const flat = [];
    const walk = (nodes) => nodes.forEach((node) => { flat.push(node); walk(node.children ?? []); });
    walk(now.handoffs);
    const begin = Math.min(...flat.map((node) => Date.parse(node.time)));
    const end = Math.max(...flat.map((node) => Date.parse(node.time) + (node.duration_ms ?? 0)));
    const span = { begin, length: Math.max(end - begin, 1), left: MAX_NODES };
    return [
      el("header", {}, el("h3", {}, el("span", { class: "soft", text: now.kind === "task" ? "Task " : "Conversation " }), now.id),
        el("p", { class: "soft", text: `${count(flat.length)} ${flat.length === 1 ? "handoff" : "handoffs"} in ${duration(span.length)}, from ${now.source === "recorder" ? "the flight recorder" : "memory"}` })),
      nodes(now.handoffs, span),
      flat.length > MAX_NODES || now.more ? el("p", { class: "soft note", text: `The first ${count(Math.min(flat.length, MAX_NODES))}; there are more.` }) : "",
    ];
  }

  function nodes(list, span) {
    const some = [];
    for (const each of list) {
      if (span.left-- <= 0) break;
      some.push(node(each, span));
    }
    return el("ol", { class: "nodes" }, some);
  }

  function node(each, span) {
    const from = (1000 * (Date.parse(each.time) - span.begin)) / span.length;
    const wide = Math.max((1000 * (each.duration_ms ?? 0)) / span.length, 4);
    const title = each.flight_id
      ? el("a", { href: app.link({ ...app.params(), id: chosen, kind: kind === "tasks" ? kind : "", packet: each.flight_id }, "conversations") }, each.capability || "packet")
      : el("b", { text: each.capability || "packet" });
    return el("li", {},
      el("div", { class: `node is-${each.outcome}` },
        mark(each.outcome), el("span", { class: "what" }, title, el("span", { class: "soft who-whom" }, " ", principal(each.from), " → ", orNone(each.agent))),
        el("span", { class: "number took", text: duration(each.duration_ms) }),
        draw("svg", { class: "span", viewBox: "0 0 1000 8", preserveAspectRatio: "none", "aria-hidden": "true" },
          draw("rect", { x: Math.min(from, 996), y: 0, width: Math.min(wide, 1000 - Math.min(from, 996)), height: 8 }))),
      each.detail ? el("p", { class: "detail soft", text: `${each.reason}: ${each.detail}` }) : null,
      allowed(each),
      each.children?.length ? nodes(each.children, span) : null);
  }

  return {
    enter(params) {
      chosen = params.id ?? "";
      kind = params.kind === "tasks" ? "tasks" : "conversations";
      look.elements.kind.value = kind;
      if (params.id) look.elements.id.value = params.id;
      every.start();
    },
    leave: () => every.stop(),
    again: () => refresh(),
  };
}

/** What a handoff was allowed, and spent, and whom the work had passed through, as far as it is known. */
function allowed(each) {
  const { policy, rule, budget, hops, timeout_ms: timeout } = each.allowed ?? {};
  const amounts = (values) => Object.entries(values ?? {}).map(([name, much]) => `${name} ${count(much)}`).join(", ");
  return facts([
    ["allowed by", each.outcome === "refused" ? "" : [policy, rule].filter(Boolean).join(" / ")],
    ["budget", amounts(budget)],
    ["hops", budget?.hops === undefined ? hops : ""],
    ["timeout", timeout ? duration(timeout) : ""],
    ["reserved", amounts(each.reserved)],
    ["spent", typeof each.spent === "object" ? amounts(each.spent) : each.spent],
    ["passed through", each.lineage?.length > 1 ? el("span", {}, each.lineage.flatMap((one, at) => [at ? " → " : "", principal(one)])) : ""],
  ], { class: "facts terse" });
}
