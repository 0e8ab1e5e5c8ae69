// Handoffs as they end: the newest first, filtered, at most `MAX_ROWS` of them.

import { cell, count, duration, el, mark, moment, orNone, principal, table } from "./dom.js";
import { ask, query } from "./gateway.js";

const MAX_ROWS = 200;
const DRAW_MS = 150;
const TYPING_MS = 350;
const OUTCOMES = ["completed", "refused", "failed", "cancelled", "revoked"];
const FILTERS = ["capability", "outcome", "from", "agent", "conversation"];

/** The view in `section`. */
export function live(section, app) {
  const filters = makeFilters();
  const pause = el("button", { type: "button", "aria-pressed": "false", text: "Pause", on: { click: () => setPaused(!paused) } });
  const clear = el("button", { type: "button", class: "quiet", text: "Clear filters", hidden: true, on: { click: clearFilters } });
  const unfold = el("button", { type: "button", class: "narrow-only", "aria-expanded": "false", text: "Filters", on: { click: () => fold(!filters.form.classList.contains("folded")) } });
  const waiting = el("span", { class: "soft waiting" });
  const note = el("p", { class: "soft note" });
  const { whole, body } = table("Handoffs, the newest first", [
    "Ended", "Outcome", "From", "Capability", "Agent", "Rule", "Conversation", ["Took", "number"],
  ], { unseen: true, name: "handoffs" });
  const empty = el("p", { class: "empty", text: "No handoff yet. Each appears here when it ends." });
  section.append(
    el("div", { class: "bar" }, el("h2", { id: "live-title", text: "Live handoffs" }), waiting, unfold, pause),
    filters.form, el("div", { class: "sheet" }, whole, empty), note);

  const kept = new Map(); // key -> record, the newest last
  let fresh = []; // what is not drawn yet, the newest last
  let missed = 0; // of those that were to be drawn while the view stood still
  let paused = false;
  let held = false; // somebody points at the rows, or is among them with the keyboard
  let timer = 0;
  let shown = "";
  let nameless = 0;

  function key(record) {
    return record.flight_id ? `${record.flight_id} ${record.time}` : (record.key ??= `~${nameless++}`);
  }

  function take(record) {
    if (kept.has(key(record))) return;
    kept.set(key(record), record);
    if (kept.size > MAX_ROWS) kept.delete(kept.keys().next().value);
    fresh.push(record);
    if (fresh.length > MAX_ROWS) fresh.shift();
    if (paused || held) {
      missed++;
      tellWaiting();
    } else if (!timer) timer = setTimeout(paint, DRAW_MS);
  }

  function paint() {
    timer = 0;
    if (paused || held || section.hidden) return;
    const rows = fresh.map(row).reverse();
    fresh = [];
    missed = 0;
    body.prepend(...rows);
    while (body.children.length > MAX_ROWS) body.lastElementChild.remove();
    empty.hidden = body.children.length > 0;
    if (!body.querySelector("a[tabindex='0']")) body.querySelector("a")?.setAttribute("tabindex", "0");
    filters.suggest(kept.values());
    tellWaiting();
  }

  function tellWaiting() {
    const so = paused ? "Paused" : held ? "Held while you are at the rows" : "";
    waiting.textContent = so && missed ? `${so}: ${count(missed)} new` : so;
  }

  function row(record) {
    const open = el("a", { href: app.link({ packet: record.flight_id || key(record) }), tabindex: "-1" }, moment((Date.parse(record.time) + (record.duration_ms ?? 0)) / 1000));
    open.setAttribute("aria-label", `${open.textContent}, ${record.outcome}: details`);
    const rule = record.reason || record.rule || "";
    return el("tr", { role: "row", class: `is-${record.outcome}` },
      cell("Ended", { class: "when" }, open),
      cell("Outcome", { class: "outcome" }, mark(record.outcome), record.status ? el("span", { class: "soft status", text: ` ${record.status}` }) : null),
      cell("From", { class: "from" }, principal(record.from)),
      cell("Capability", { class: "capability" }, orNone(record.capability)),
      cell("Agent", { class: "agent" }, orNone(record.agent), record.attempts > 1 ? el("span", { class: "soft", text: ` ×${record.attempts}`, title: `${record.attempts} attempts` }) : null),
      cell("Rule", { class: "rule", title: record.detail || [record.policy, record.rule].filter(Boolean).join("/") }, orNone(rule),
        record.shadow ? el("span", { class: "tag", text: "shadow", title: record.shadow }) : null),
      cell("Conversation", { class: "conversation" }, orNone(record.conversation)),
      cell("Took", { class: "took number" }, duration(record.duration_ms)));
  }

  function fold(now) {
    filters.form.classList.toggle("folded", now);
    unfold.setAttribute("aria-expanded", String(!now));
  }

  function setPaused(now) {
    paused = now;
    pause.setAttribute("aria-pressed", String(now));
    pause.textContent = now ? "Resume" : "Pause";
    tellWaiting();
    if (!now) paint();
  }

  function setHeld(now) {
    if (held === now) return;
    held = now;
    tellWaiting();
    if (!now) paint();
  }

  body.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && setHeld(true));
  body.addEventListener("pointerleave", () => setHeld(body.contains(document.activeElement)));
  body.addEventListener("focusin", (event) => {
    for (const link of body.querySelectorAll("a[tabindex='0']")) link.setAttribute("tabindex", "-1");
    event.target.closest("tr").querySelector("a").setAttribute("tabindex", "0");
    setHeld(true);
  });
  body.addEventListener("focusout", (event) => setHeld(body.contains(event.relatedTarget) || body.matches(":hover")));
  body.addEventListener("click", (event) => {
    if (!event.target.closest("a") && !String(getSelection())) event.target.closest("tr")?.querySelector("a").click();
  });
  body.addEventListener("keydown", (event) => {
    const rows = [...body.children];
    const at = rows.indexOf(event.target.closest("tr"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    rows[Math.max(0, Math.min(to, rows.length - 1))]?.querySelector("a").focus();
  });

  function makeFilters() {
    const lists = Object.fromEntries(["capability", "from", "agent", "conversation"].map((name) => [name, el("datalist", { id: `some-${name}` })]));
    const typed = (name, title) => el("label", {}, title,
      el("input", { name, list: `some-${name}`, autocomplete: "off", spellcheck: "false", autocapitalize: "off", placeholder: "any" }), lists[name]);
    const form = el("form", { class: "filters folded", role: "search", "aria-label": "Filter handoffs" },
      typed("capability", "Capability"),
      el("label", {}, "Outcome", el("select", { name: "outcome" }, el("option", { value: "", text: "any" }), OUTCOMES.map((each) => el("option", { text: each })))),
      typed("from", "From"), typed("agent", "Agent"), typed("conversation", "Conversation"));
    let typing = 0;
    const put = () => app.navigate("live", Object.fromEntries(FILTERS.map((name) => [name, form.elements[name].value.trim()])), { replace: true });
    form.addEventListener("submit", (event) => { event.preventDefault(); put(); });
    form.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(put, TYPING_MS); });
    const suggest = (records) => {
      const seen = { capability: new Set(), from: new Set(), agent: new Set(), conversation: new Set() };
      for (const record of records) for (const name of Object.keys(seen)) if (record[name]) seen[name].add(record[name]);
      for (const [name, values] of Object.entries(seen)) {
        const some = [...values].sort().slice(0, 50);
        if (lists[name].dataset.some === some.join()) continue;
        lists[name].dataset.some = some.join();
        lists[name].replaceChildren(...some.map((value) => el("option", { value })));
      }
    };
    return { form, suggest };
  }

  function clearFilters() {
    app.navigate("live", {});
    filters.form.elements.capability.focus();
  }

  filters.form.append(clear);

  async function restart(wanted) {
    kept.clear();
    fresh = [];
    missed = 0;
    body.replaceChildren();
    empty.hidden = false;
    const some = Object.values(wanted).some(Boolean);
    clear.hidden = !some;
    if (some) fold(false);
    empty.textContent = some ? "No handoff that these filters let through, yet." : "No handoff yet. Each appears here when it ends.";
    app.stream(wanted);
    const asked = shown;
    try {
      const answer = await ask(`handoffs${query({ ...wanted, limit: MAX_ROWS })}`);
      if (asked !== shown) return; // other filters by now
      const since = [...kept.values()];
      kept.clear();
      fresh = [];
      body.replaceChildren();
      for (const record of answer.handoffs.toReversed().concat(since)) take(record);
    } catch (error) {
      app.trouble(error);
    }
  }

  return {
    enter(params) {
      const wanted = Object.fromEntries(FILTERS.map((name) => [name, params[name] ?? ""]));
      for (const name of FILTERS) {
        const field = filters.form.elements[name];
        if (field.value.trim() !== wanted[name]) field.value = wanted[name];
      }
      const now = JSON.stringify(wanted);
      if (now !== shown) {
        shown = now;
        restart(wanted);
      } else paint();
    },
    handoff: take,
    state(state) {
      note.textContent = state.dropped ? `${count(state.dropped)} handoffs came faster than this page could take them, and are not shown.` : "";
    },
    /** A record that is shown here, by its id or key. */
    record(name) {
      return [...kept.values()].reverse().find((each) => (each.flight_id || each.key) === name);
    },
    again() {
      shown = "";
    },
  };
}
