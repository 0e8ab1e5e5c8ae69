// Members: the ring of a capability, and a table of everybody.

import { cell, count, el, figure, mark, moment, percent, reconcile, table } from "./dom.js";
import { Every, ask } from "./gateway.js";
import { ring, tell } from "./ring.js";

const EVERY_MS = 2_000;
const MAX_ROWS = 200;

/** What an operator may have done to a member: in which states, and what comes of it, in words. */
const OPERATIONS = {
  drain: { title: "Drain", from: ["ready", "ejected"], text: "It gets no new conversations. What is under way ends, and conversations move on." },
  eject: { title: "Eject", from: ["ready", "draining"], text: "It gets no new packets from now on. What is under way goes on." },
  retire: { title: "Retire", from: ["ready", "draining", "ejected"], text: "It gets nothing any more, until it is restored. What is under way goes on." },
  restore: { title: "Restore", from: ["draining", "ejected", "retired"], text: "It is again as its source and its health have it." },
};

/** The view in `section`. */
export function members(section, app) {
  const choice = el("select", { id: "ring-of", on: { change: () => app.navigate("members", { ...app.params(), capability: choice.value }) } });
  const all = el("input", { type: "checkbox", on: { change: () => refresh() } });
  const image = el("figure", { class: "ring" });
  const off = el("p", { class: "soft note" });
  const caption = el("figcaption", { class: "soft" }, "Outside: each member's share, as thick as its trust. Inside: where its points lie on the circle, and bars for packets in flight.");
  const { whole, body } = table("Members", ["Member", "State", ["Trust", "number"], ["Reliability", "number"], ["Share", "number"], ["In flight", "number"], "Operations"], { unseen: true, name: "members" });
  const more = el("p", { class: "soft note" });
  section.append(
    el("div", { class: "bar" }, el("h2", { id: "members-title", text: "Members" }),
      el("label", { class: "inline" }, "Ring of ", choice), el("label", { class: "inline" }, all, " everybody")),
    el("div", { class: "beside-ring" }, el("div", { class: "ring-holder" }, image, off, caption), el("div", {}, el("div", { class: "sheet" }, whole), more)));

  let wanted = "";
  let drawn = "";
  let known = null; // names at the last look, to tell who came and went
  let shown = []; // the ring's members
  let pointed = "";

  const every = new Every(EVERY_MS, refresh);

  async function refresh() {
    try {
      const { members: everybody } = await ask("members");
      const capabilities = [...new Set(everybody.flatMap((member) => member.capabilities))].sort();
      const capability = capabilities.includes(wanted) ? wanted : busiest(everybody, capabilities);
      choices(capabilities, capability);
      const answer = capability ? await ask(`ring?${new URLSearchParams({ capability })}`) : { members: [] };
      paint(everybody, capability, answer.members);
      app.trouble(null);
    } catch (error) {
      app.trouble(error);
    }
  }

  function busiest(everybody, capabilities) {
    const offered = (capability) => everybody.filter((member) => member.capabilities.includes(capability)).length;
    return capabilities.reduce((best, each) => (best && offered(best) >= offered(each) ? best : each), "");
  }

  function choices(capabilities, capability) {
    if (choice.dataset.some !== capabilities.join()) {
      choice.dataset.some = capabilities.join();
      choice.replaceChildren(...capabilities.map((value) => el("option", { value, text: value })));
    }
    choice.value = capability;
  }

  function paint(everybody, capability, onRing) {
    const byName = new Map(everybody.map((member) => [member.name, member]));
    const arcsOf = new Map(onRing.map((member) => [member.name, member]));
    shown = onRing.map((member) => ({ ...member, trust: byName.get(member.name)?.trust ?? 1, state: member.state ?? byName.get(member.name)?.state }))
      .sort((one, other) => (one.name < other.name ? -1 : 1));
    const now = JSON.stringify([capability, shown]);
    if (now !== drawn) {
      drawn = now;
      image.replaceChildren(shown.some((member) => member.share > 0) ? ring(capability, shown, point) : el("p", { class: "empty", text: "Nobody is on this ring." }));
      if (pointed) point(pointed);
    }
    const offering = everybody.filter((member) => all.checked || member.capabilities.includes(capability));
    const outside = everybody.filter((member) => member.capabilities.includes(capability) && !(arcsOf.get(member.name)?.share > 0));
    off.textContent = outside.length ? `Off the ring: ${outside.slice(0, 12).map((member) => `${member.name} (${member.state})`).join(", ")}${outside.length > 12 ? ` and ${outside.length - 12} more` : ""}` : "";
    reconcile(body, offering.slice(0, MAX_ROWS), (member) => member.name, row, (element, member) => update(element, member, arcsOf.get(member.name)));
    more.textContent = `${count(offering.length)} of ${count(everybody.length)} members${offering.length > MAX_ROWS ? `, the first ${MAX_ROWS} of them here` : ""}.`;
    tellChanges(byName);
  }

  function tellChanges(byName) {
    if (known) {
      const came = [...byName.keys()].filter((name) => !known.has(name));
      const went = [...known].filter((name) => !byName.has(name));
      for (const name of came) body.querySelector(`[data-key="${CSS.escape(name)}"]`)?.classList.add("new");
      const words = [came.length && `${came.slice(0, 3).join(", ")} joined`, went.length && `${went.slice(0, 3).join(", ")} left`].filter(Boolean);
      if (words.length) app.announce(words.join("; "));
    }
    known = new Set(byName.keys());
  }

  function point(name) {
    pointed = name;
    const drawing = image.querySelector("svg");
    if (drawing) tell(drawing, shown, name, choice.value);
    for (const row of body.children) row.classList.toggle("chosen", row.dataset.key === name);
  }

  function row(member) {
    const element = el("tr", { role: "row", on: {
      pointerenter: () => point(member.name), pointerleave: () => point(""),
      focusin: () => point(member.name), focusout: () => point(""),
    } });
    element.append(
      el("th", { role: "rowheader", scope: "row", "data-label": "Member", class: "name" }, el("b", { text: member.name }), el("span", { class: "soft address" }), el("span", { class: "soft capabilities" })),
      cell("State", { class: "state" }), cell("Trust", { class: "number trust" }), cell("Reliability", { class: "number reliability" }),
      cell("Share", { class: "number share" }), cell("In flight", { class: "number load" }), cell("Operations", { class: "operations" }));
    return element;
  }

  function update(element, member, onRing) {
    const put = (name, text) => {
      const place = element.querySelector(`.${name}`);
      if (place.textContent !== text) place.textContent = text;
    };
    element.className = `is-${member.state}${element.classList.contains("chosen") ? " chosen" : ""}${element.classList.contains("new") ? " new" : ""}`;
    const state = `${member.state}\n${member.why ?? ""}`;
    const place = element.querySelector(".state");
    if (place.dataset.now !== state) {
      place.dataset.now = state;
      place.replaceChildren(mark(member.state), member.why ? el("span", { class: "soft because", text: withClock(member.why) }) : "");
    }
    put("address", [member.address, member.protocol, member.zone, member.source && member.source !== "file" && `from ${member.source}`].filter(Boolean).join(" · "));
    put("trust", figure2(member.trust));
    put("reliability", figure2(member.reliability));
    put("share", onRing?.share > 0 ? percent(onRing.share) : "–");
    put("load", figure(member.in_flight).replace(/[.,]0$/, ""));
    put("capabilities", member.capabilities.join(", "));
    operations(element.querySelector(".operations"), member);
  }

  function operations(place, member) {
    const now = `${app.operator()} ${member.state}`;
    if (place.dataset.now === now) return;
    const focused = place.contains(document.activeElement);
    place.dataset.now = now;
    const possible = app.operator() ? Object.entries(OPERATIONS).filter(([, each]) => each.from.includes(member.state)) : [];
    place.replaceChildren(...possible.map(([name, each]) =>
      el("button", { type: "button", class: "small", "aria-label": `${each.title} ${member.name}`, text: each.title, on: { click: () => operate(name, each, member) } })));
    if (focused) (place.querySelector("button") ?? choice).focus();
  }

  async function operate(name, each, member) {
    const load = member.in_flight ? ` ${count(member.in_flight)} ${member.in_flight === 1 ? "packet is" : "packets are"} in flight there.` : "";
    if (!(await app.confirm(`${each.title} ${member.name}?`, each.text + load, each.title))) return;
    await app.operate(`operations/members/${encodeURIComponent(member.name)}/${name}`, `${member.name}: ${name} is done.`);
    await refresh();
  }

  return {
    enter(params) {
      wanted = params.capability ?? "";
      every.start();
    },
    leave: () => every.stop(),
    again: () => refresh(),
  };
}

/** `text` with the times in it as a clock here shows them. */
function withClock(text) {
  return text.replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)/g, (iso) => moment(iso, { milliseconds: false }).textContent);
}

function figure2(value) {
  return Number(value ?? 0).toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}
