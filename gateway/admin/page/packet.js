// One packet: what became of it, phase by phase, and why.

import { draw, duration, el, facts, mark, moment, principal, sign } from "./dom.js";
import { ask } from "./gateway.js";

/** The drawer in `dialog`; `find` gives a handoff's record by its id, while it is in memory. */
export function packet(dialog, app, find) {
  let shown = "";
  let opener = null; // to give the focus back to: a browser takes it from a link that is followed

  document.addEventListener("click", (event) => {
    opener = event.target.closest?.("a[href*='packet=']:not(dialog *)") ?? opener;
  });
  dialog.addEventListener("close", () => {
    if (shown) app.navigate(app.view(), { ...app.params(), packet: "" });
    shown = "";
    opener?.focus();
    opener = null;
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  return {
    async show(id) {
      if (id === shown) return;
      shown = id;
      if (!id) {
        dialog.close();
        return;
      }
      const record = find(id) ?? (await recent(id));
      if (shown !== id) return;
      const why = el("section", { class: "why", "aria-label": "Why", "aria-busy": "true" }, el("p", { class: "soft", text: "Asking why …" }));
      dialog.replaceChildren(...head(id, record, dialog), ...(record ? became(record, app) : []), why);
      if (!dialog.open) dialog.showModal();
      dialog.scrollTop = 0;
      why.replaceChildren(...(id.startsWith("~") ? [unexplained()] : await explained(id, record)));
      why.removeAttribute("aria-busy");
    },
  };
}

async function recent(id) {
  if (id.startsWith("~")) return undefined;
  try {
    return (await ask("handoffs?limit=1000")).handoffs.find((each) => each.flight_id === id);
  } catch {
    return undefined; // what can be explained is shown all the same
  }
}

function head(id, record, dialog) {
  const close = el("button", { type: "button", class: "quiet close", "aria-label": "Close", text: "×", on: { click: () => dialog.close() } });
  const title = record?.capability || "Packet";
  const heading = el("h2", { id: "packet-title", text: title });
  const lines = [el("header", {}, el("div", {}, record ? mark(record.outcome) : null, heading), close)];
  if (!record) {
    lines.push(el("p", { class: "soft" }, "Its handoff is no longer among the latest. ", el("code", { text: id })));
  } else if (record.reason || record.detail) {
    lines.push(el("div", { class: `verdict verdict-${record.outcome}` }, sign(record.outcome),
      el("div", {}, el("b", { text: record.reason || record.outcome }), record.status ? el("span", { class: "soft", text: ` · ${record.status}` }) : null,
        record.detail ? el("p", { class: "detail", text: record.detail }) : null)));
  }
  return lines;
}

function became(record, app) {
  const to = (view, params, text) => el("a", { href: app.link(params, view), text });
  const rule = [record.policy, record.rule].filter(Boolean).join(" / ");
  const bytes = `${(record.bytes_in ?? 0).toLocaleString()} in, ${(record.bytes_out ?? 0).toLocaleString()} out`;
  return [
    phases(record),
    facts([
      ["From", principal(record.from)],
      ["Signed by", record.signer ? principal(record.signer) : null],
      ["Agent", record.agent],
      ["Rule", rule],
      ["Approval", record.approval],
      ["Shadow would", record.shadow],
      ["Began", moment(record.time, { day: true })],
      ["Conversation", record.conversation ? to("conversations", { id: record.conversation }, record.conversation) : null],
      ["Task", record.task ? to("conversations", { id: record.task, kind: "tasks" }, record.task) : null],
      ["Parent", record.parent ? to(app.view(), { ...app.params(), packet: record.parent }, record.parent) : null],
      ["Packet", record.flight_id ? el("code", { text: record.flight_id }) : "could not be read"],
      ["Request", [record.method, record.authority, record.path].filter(Boolean).join(" ")],
      ["Protocol", [record.protocol, record.listener && `on ${record.listener}`].filter(Boolean).join(" ")],
      ["Bytes", bytes],
      ["Spent", record.usage],
      ["Answer", record.repeated ? "that of the packet's first time; no agent was asked" : null],
      ["Revision", record.revision ? el("code", { text: record.revision }) : null],
      ["Trace", record.trace_id ? el("code", { text: record.trace_id }) : null],
    ]),
  ];
}

/** The way of a packet in time: a bar, and the same in words. */
function phases(record) {
  const whole = record.duration_ms || 0;
  const steps = [];
  const add = (kind, title, from, to) => to > from && steps.push({ kind, title, from, to });
  let from = 0;
  for (const attempt of record.failed ?? []) {
    add("own", "gateway", from, attempt.asked_ms);
    add("lost", `${attempt.agent}: ${attempt.cause}`, attempt.asked_ms, attempt.ended_ms);
    from = attempt.ended_ms;
  }
  if (record.sent_ms) {
    add("own", "gateway", from, record.asked_ms || from);
    add("connect", "connection and sending", record.asked_ms || from, record.sent_ms);
    add("agent", `${record.agent}: until its answer begins`, record.sent_ms, record.answered_ms || whole);
    if (record.answered_ms) add("relay", "answer, until its end", record.answered_ms, whole);
  } else add("own", "gateway", from, whole);
  const scale = 1000 / Math.max(whole, ...steps.map((step) => step.to), 1e-6);
  return el("section", { class: "phases", "aria-labelledby": "phases-title" },
    el("h3", { id: "phases-title" }, "Took ", el("span", { text: duration(whole) })),
    draw("svg", { viewBox: "0 0 1000 14", preserveAspectRatio: "none", "aria-hidden": "true" },
      steps.map((step) => draw("rect", { class: `phase-${step.kind}`, x: step.from * scale, y: 0, width: Math.max((step.to - step.from) * scale, 3), height: 14 }))),
    el("ol", {}, steps.map((step) => el("li", {}, el("i", { class: `key key-${step.kind}`, "aria-hidden": "true" }),
      el("span", { text: step.title }), el("span", { class: "number", text: duration(step.to - step.from) })))));
}

function unexplained() {
  return el("p", { class: "soft", text: "It could not be read as a packet, so no rule was held against it." });
}

async function explained(id, record) {
  let answer;
  try {
    answer = await ask(`explain?${new URLSearchParams({ id })}`);
  } catch (error) {
    return [el("h3", { text: "Why" }), el("p", { class: "soft", text: error.message })];
  }
  const { recorded, explanation } = answer;
  const lines = [el("h3", { text: "Why" })];
  if (!explanation) {
    lines.push(el("p", { text: "It was refused before policies were asked, so it would be refused under any." }));
  } else {
    lines.push(...sentence(recorded, explanation), rules(explanation.rules ?? []), agents(explanation.agents ?? []));
    if (explanation.shadow) lines.push(el("h3", { text: "Shadow policies" }), facts(Object.entries(explanation.shadow).map(([name, value]) => [name, flat(value)])));
  }
  if (recorded?.fields?.length) {
    lines.push(el("details", {}, el("summary", { text: "Header fields that were decided on" }),
      facts(recorded.fields.map(([name, value]) => [name, el("code", { text: value })]))));
  }
  if (!record && recorded) lines.push(facts([["From", principal(recorded.from)], ["When", moment(recorded.time, { day: true })]]));
  return lines;
}

function flat(value) {
  return Array.isArray(value) ? value.join(", ") : typeof value === "object" && value ? JSON.stringify(value) : String(value);
}

function sentence(recorded, now) {
  const same = !recorded || (recorded.allow ?? false) === (now.allow ?? false);
  const so = now.allow ? `goes to ${now.agent}` : `is refused: ${now.reason}`;
  const lines = [];
  if (!same) {
    lines.push(el("p", { class: "changed" }, el("b", { text: "Otherwise by now. " }),
      `What is in force has changed since: today such a packet ${so}.`));
  }
  lines.push(el("p", { class: "soft" }, `Held against what is in force now, revision `, el("code", { text: now.revision }), `. Such a packet ${so}.`));
  return lines;
}

function rules(considered) {
  const concerned = considered.filter((rule) => rule.speaks && rule.caller);
  const others = considered.filter((rule) => !(rule.speaks && rule.caller));
  return el("section", { "aria-labelledby": "rules-title" },
    el("h3", { id: "rules-title", text: "Rules that concern it" }),
    concerned.length ? el("ul", { class: "considered" }, concerned.map(rule)) : el("p", { class: "soft", text: "None: no rule covers this caller and capability." }),
    others.length ? el("details", {}, el("summary", { text: `${others.length} that ${others.length === 1 ? "does" : "do"} not` }), el("ul", { class: "considered" }, others.map(rule))) : null);
}

function rule(each) {
  return el("li", { class: each.speaks && each.caller ? null : "beside" },
    el("p", {}, sign(each.effect), el("b", { text: `${each.policy} / ${each.rule}` }), " ",
      el("span", { class: "soft", text: each.effect }), each.mode === "shadow" ? el("span", { class: "tag", text: "shadow" }) : null),
    el("p", { class: "detail", text: `${each.capability}: ${each.verdict}` }),
    each.when ? condition("when", each.when, each.when_is) : null,
    each.require ? condition("require", each.require, each.require_is) : null);
}

function condition(name, text, is) {
  return el("p", { class: "condition" }, el("span", { class: "soft", text: `${name} ` }), el("code", { text }), is ? ` is ${is}` : null);
}

function agents(considered) {
  if (!considered.length) return null;
  const able = considered.filter((agent) => !agent.why.startsWith("lacks"));
  const others = considered.length - able.length;
  return el("section", { "aria-labelledby": "agents-title" },
    el("h3", { id: "agents-title", text: "Agents" }),
    el("ul", { class: "considered" }, able.slice(0, 100).map((agent) => el("li", {},
      el("p", {}, sign(agent.eligible ? "completed" : "cancelled"), el("b", { text: agent.name }), " ", el("span", { class: "soft", text: agent.eligible ? "eligible" : "not eligible" })),
      el("p", { class: "detail", text: agent.why })))),
    others ? el("p", { class: "soft", text: `${others} ${others === 1 ? "other lacks" : "others lack"} the capability.` }) : null);
}
