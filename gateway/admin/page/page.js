// The page: which view is seen, the stream, the figures on top, and who is an operator.

import { approvals } from "./approvals.js";
import { conversations } from "./conversations.js";
import { count, draw, el, figure } from "./dom.js";
import { Refused, Stream, ask } from "./gateway.js";
import { health, revisions } from "./health.js";
import { live } from "./live.js";
import { members } from "./members.js";
import { packet } from "./packet.js";
import { policies } from "./policies.js";
import { operators } from "./operators.js";

const $ = (id) => document.getElementById(id);
const REMEMBERED = 60; // states, each a second: what the small curves show
const SAY_EVERY_MS = 20_000; // to a screen reader
const FIGURES = [
  { name: "in_flight", title: "In flight", show: count },
  { name: "handoffs_per_s", title: "Handoffs/s", show: figure },
  { name: "refused_per_s", title: "Refused/s", show: figure, bad: (value) => value > 0 && "warn" },
  { name: "failed_per_s", title: "Failed/s", show: figure, bad: (value) => value > 0 && "bad" },
  { name: "connections", title: "Connections", show: count },
  { name: "loop_lag_ms", title: "Loop lag", unit: "ms", show: figure, bad: (value) => value > 50 && "warn" },
  { name: "overload_level", title: "Overload", show: (level) => (level ? `level ${level}` : "none"), bad: (level) => level > 0 && "bad", flat: true },
];

const views = {};
let current = "";
let link = "connecting";
let said = 0;
let revision = "";
const states = [];

const app = {
  view: () => current,
  params: () => where().params,
  /** A link to a view with `params`; to the view that is seen, with its params, when none is named. */
  link(params, view = current) {
    return address(view, view === current && params.packet !== undefined ? { ...app.params(), ...params } : params);
  },
  navigate(view, params, { replace = false } = {}) {
    const to = address(view, params);
    if (to === location.hash) return;
    // Not by location.hash, which would take the focus away.
    if (replace) history.replaceState(null, "", to);
    else history.pushState(null, "", to);
    arrive();
  },
  stream: (filters) => stream.open(filters),
  announce: (text) => { $("announcer").textContent = text; },
  trouble,
  ...operators(() => afresh()),
};

function address(view, params) {
  const kept = Object.entries(params).filter(([, value]) => value);
  return `#${view}${kept.length ? `?${new URLSearchParams(kept)}` : ""}`;
}

function where() {
  const [view, rest = ""] = location.hash.slice(1).split("?");
  return { view: Object.hasOwn(views, view) ? view : "live", params: Object.fromEntries(new URLSearchParams(rest)) };
}

function arrive() {
  const { view, params } = where();
  if (view !== current) {
    views[current]?.leave?.();
    for (const name of Object.keys(views)) $(`view-${name}`).hidden = name !== view;
    for (const each of document.querySelectorAll(".tabs a")) {
      if (each.getAttribute("href") === `#${view}`) each.setAttribute("aria-current", "page");
      else each.removeAttribute("aria-current");
    }
    document.title = `${view[0].toUpperCase()}${view.slice(1)} · PhoenixFlight gateway`;
    trouble(null);
    current = view;
  }
  const { packet: id = "", ...rest } = params;
  views[view].enter(rest);
  drawer.show(id);
}

/** What could not be asked: at the top of the view, until it can. */
function trouble(error) {
  const banner = $("banner");
  if (!error) {
    banner.hidden = true;
    return;
  }
  const unknown = error instanceof Refused && (error.status === 401 || error.status === 403);
  const text = unknown ? "This gateway answers only those who are allowed. Sign in, or come with a certificate." : error instanceof Refused ? error.message : "The gateway does not answer.";
  if (banner.hidden || banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
  if (unknown) app.refused();
}

/** All anew: somebody signed in or out, or the gateway is back. */
function afresh() {
  stream.retry();
  views.live.again();
  if (current === "live") arrive();
  else views[current].again();
}

const stream = new Stream({
  handoff: (record) => views.live.handoff(record),
  state(state) {
    states.push(state);
    if (states.length > REMEMBERED) states.shift();
    paintFigures(state);
    for (const view of Object.values(views)) view.state?.(state);
  },
  link(now) {
    if (now === link) return;
    const back = now === "live" && link === "disconnected";
    link = now;
    if (back) afresh();
    document.body.dataset.link = now;
    $("link").dataset.state = now;
    $("link-text").textContent = now === "disconnected" ? "disconnected, trying again" : now;
  },
});

const cells = FIGURES.map((each) => {
  const value = el("span", { class: "value", text: "–" });
  const curve = each.flat ? null : draw("svg", { class: "curve", viewBox: `0 0 ${REMEMBERED - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" }, draw("path", {}));
  $("figures").append(el("div", { class: "figure" }, el("dt", { text: each.title }), el("dd", {}, value, each.unit ? el("span", { class: "soft unit", text: ` ${each.unit}` }) : null), curve ? el("dd", { class: "for-eyes", "aria-hidden": "true" }, curve) : null));
  return { ...each, value, curve };
});

function paintFigures(state) {
  for (const each of cells) {
    const value = state[each.name] ?? 0;
    const text = each.show(value);
    if (each.value.textContent !== text) each.value.textContent = text;
    each.value.parentElement.dataset.tone = each.bad?.(value) || "";
    each.curve?.firstElementChild.setAttribute("d", curve(states.map((one) => one[each.name] ?? 0)));
  }
  if (state.revision !== revision) {
    revision = state.revision;
    $("revision").replaceChildren("revision ", el("code", { text: revision ?? "several" }));
  }
  document.body.dataset.ready = String(Boolean(state.ready));
  if (link === "live") $("link-text").textContent = state.ready ? "live" : "live, not ready";
  if (Date.now() - said > SAY_EVERY_MS) {
    said = Date.now();
    app.announce(`${figure(state.handoffs_per_s)} handoffs a second, ${figure(state.refused_per_s)} refused, ${figure(state.failed_per_s)} failed.`);
  }
}

function curve(values) {
  const top = Math.max(...values, 1e-9);
  const begin = REMEMBERED - values.length;
  return values.map((value, at) => `${at ? "L" : "M"}${begin + at} ${(19 - 18 * (value / top)).toFixed(1)}`).join("");
}

Object.assign(views, {
  live: live($("view-live"), app),
  members: members($("view-members"), app),
  conversations: conversations($("view-conversations"), app),
  approvals: approvals($("view-approvals"), app, $("approvals-waiting")),
  policies: policies($("view-policies"), app),
  revisions: revisions($("view-revisions"), app),
  health: health($("view-health"), app),
});
const drawer = packet($("packet"), app, (id) => views.live.record(id));

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", arrive);
arrive();
if (current !== "live") stream.open({}); // the live view opens it with its filters
app.who();
