// What is in force and what was refused; and how the gateway is.

import { count, el, facts, figure, mark, moment, told } from "./dom.js";
import { Every, ask } from "./gateway.js";

const EVERY_MS = 3_000;
const LEVELS = ["normal", "connections are not kept open", "new requests are turned away", "new connections are turned away"];

/** One gateway's status, or those of its workers. */
function statuses(status) {
  return status.workers ? status.workers.map((each) => ({ title: `Worker ${each.worker}`, pid: each.pid, restarts: each.restarts, status: each.status })) : [{ title: "", status }];
}

/** The view of revisions in `section`. */
export function revisions(section, app) {
  const reload = el("button", { type: "button", text: "Reload now", hidden: true, on: { click: again } });
  const now = el("div", {});
  const list = el("ol", { class: "history", "aria-label": "History, the newest first" });
  section.append(el("div", { class: "bar" }, el("h2", { id: "revisions-title", text: "Revisions" }), reload), now, list);
  const every = new Every(EVERY_MS, refresh);
  let drawn = "";

  async function refresh() {
    reload.hidden = !app.operator();
    try {
      const whole = await ask("status");
      const status = statuses(whole).map((each) => each.status).find(Boolean) ?? {};
      const seen = JSON.stringify([whole.revision, whole.in_step_with_files, whole.needs_restart, status.since, status.warnings, status.history, status.files]);
      if (seen !== drawn) {
        drawn = seen;
        paint(whole, status);
      }
      app.trouble(null);
    } catch (error) {
      app.trouble(error);
    }
  }

  function paint(whole, status) {
    now.replaceChildren(
      el("div", { class: `verdict verdict-${whole.in_step_with_files ? "completed" : "failed"}` },
        el("div", {}, el("b", {}, whole.revision ? el("code", { text: whole.revision }) : "workers are not of one revision"),
          el("span", { class: "soft" }, " in force since ", moment(status.since, { day: true, milliseconds: false })),
          el("p", { text: whole.in_step_with_files ? "It is what the files say." : "The files say something else that was refused. What is in force stays as it is." }))),
      ...(whole.needs_restart?.length ? [el("h3", { text: "Needs a restart" }), el("ul", { class: "problems" }, whole.needs_restart.map((text) => el("li", {}, el("code", { text }))))] : []),
      ...(status.warnings?.length ? [el("h3", { text: "Warnings" }), el("ul", { class: "problems" }, status.warnings.map((text) => el("li", { text })))] : []),
      el("details", {}, el("summary", { text: `${status.files?.length ?? 0} files` }), el("ul", { class: "plain" }, (status.files ?? []).map((file) => el("li", {}, el("code", { text: file }))))),
      el("h3", { text: "History" }));
    list.replaceChildren(...[...(status.history ?? [])].reverse().map(entry));
  }

  function entry(each) {
    return el("li", {}, moment(each.at, { day: true, milliseconds: false }), " ",
      each.revision ? el("span", {}, mark("completed", "in force"), " ", el("code", { text: each.revision }))
        : el("div", {}, mark("refused"), el("ul", { class: "problems" }, (each.problems ?? []).map((text) => el("li", { text })))));
  }

  async function again() {
    if (!(await app.confirm("Reload?", "All files are read and checked again. What does not hold is refused, and changes nothing.", "Reload"))) return;
    await app.operate("operations/reload", "The files were read again.");
    await refresh();
  }

  return { enter: () => every.start(), leave: () => every.stop(), again: () => refresh() };
}

/** The view of health in `section`. */
export function health(section, app) {
  const now = el("div", {});
  const rest = el("div", { class: "cards" });
  section.append(el("div", { class: "bar" }, el("h2", { id: "health-title", text: "Health" })), now, rest);
  const every = new Every(EVERY_MS, refresh);
  let drawn = "";

  async function refresh() {
    try {
      const whole = await ask("status");
      const seen = JSON.stringify(whole);
      if (seen !== drawn) {
        drawn = seen;
        const open = new Set([...rest.querySelectorAll("details[open]")].map((each) => each.dataset.name));
        rest.replaceChildren(...statuses(whole).flatMap((each) => cards(each, whole)));
        for (const each of rest.querySelectorAll("details")) each.open = open.has(each.dataset.name);
      }
      app.trouble(null);
    } catch (error) {
      app.trouble(error);
    }
  }

  function cards({ title, pid, restarts, status }, whole) {
    const card = (name, ...children) => el("section", { class: "sheet card", "aria-label": [title, name].filter(Boolean).join(": ") },
      el("h3", {}, title ? el("span", { class: "soft", text: `${title} · ` }) : null, name), ...children);
    if (!status) return [card("Process", el("p", {}, mark("failed", "does not answer")))];
    const { sources, health: members, problems } = status.membership ?? {};
    const made = [
      card("Process", facts([
        ["Version", status.version], ["Process", pid ?? status.pid], ["Restarts", restarts],
        ["HTTP/1.1", status.http1], ["HTTP/2", status.http2], ["Data plane", status.compiled ? "compiled" : "interpreted"], ["Event loop", status.event_loop],
      ])),
      card("Certificates", facts([["Read", moment(status.certificates_since, { day: true, milliseconds: false })]]), told(status.certificates)),
    ];
    if (members) made.push(card("Members' health", told(members)));
    const others = { sources, problems };
    if (Object.values(others).some((each) => each && Object.keys(each).length)) made.push(card("Membership", told(others)));
    if (status.shared_replay !== null && status.shared_replay !== undefined) {
      made.push(card("Redis", facts([["Replay memory", status.shared_replay], ["Leases", status.shared_leases], ["Ledger", status.shared_ledger]])));
    }
    const known = new Set(["version", "pid", "http1", "http2", "compiled", "event_loop", "ready", "revision", "since", "files", "in_step_with_files", "needs_restart", "last_refused",
      "warnings", "history", "certificates_since", "certificates", "shared_replay", "shared_leases", "shared_ledger", "membership", "workers"]);
    for (const [name, value] of Object.entries({ ...(title ? {} : whole), ...status })) {
      if (!known.has(name) && value !== null) made.push(card(name.replaceAll("_", " "), told(value)));
    }
    return made;
  }

  return {
    enter: () => every.start(),
    leave: () => every.stop(),
    again: () => refresh(),
    state(state) {
      if (section.hidden) return;
      now.replaceChildren(el("div", { class: `verdict verdict-${state.ready ? "completed" : "failed"}` },
        el("div", {}, el("b", { text: state.ready ? "Ready" : "Not ready" }),
          el("p", { text: `Overload: ${LEVELS[state.overload_level] ?? state.overload_level}. The event loop lags ${figure(state.loop_lag_ms)} ms. ${count(state.connections)} connections, ${count(state.in_flight)} packets in flight.` }))));
    },
  };
}
