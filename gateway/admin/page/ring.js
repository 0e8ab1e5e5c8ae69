// The ring, drawn: each member's share with its state, trust and load, and inside where its points lie.

import { draw, percent } from "./dom.js";

const CENTRE = 200;
const SHARES = { inner: 122, thin: 8, thick: 26 }; // as thick as the member's trust
const LOAD = { from: 93, longest: 18 }; // towards the centre
const POINTS = { inner: 98, outer: 112 };
const GAP = 0.0025; // of the circle, between shares
const LABELS = 158;
const LABEL_SHARE = 0.03; // smaller ones have no name beside them

function at(fraction, radius) {
  const angle = 2 * Math.PI * (fraction - 0.25);
  return [CENTRE + radius * Math.cos(angle), CENTRE + radius * Math.sin(angle)];
}

function spot(fraction, radius) {
  return at(fraction, radius).map((value) => value.toFixed(2)).join(" ");
}

/** The outline of a piece of a band, from one fraction of the circle to another. */
function band(from, to, inner, outer) {
  const end = Math.min(to, from + 0.99999);
  const large = end - from > 0.5 ? 1 : 0;
  return `M${spot(from, outer)}A${outer} ${outer} 0 ${large} 1 ${spot(end, outer)}` +
    `L${spot(end, inner)}A${inner} ${inner} 0 ${large} 0 ${spot(from, inner)}Z`;
}

/** Likewise; an arc over the circle's end comes as one that ends before it begins. */
function bands(arcs, inner, outer) {
  return arcs.map(([from, to]) => band(from, to < from ? to + 1 : to, inner, outer)).join("");
}

/** The drawing of `members`, of `/ring` with trust; `chosen(name)` hears whom the pointer is on, or "". */
export function ring(capability, members, chosen) {
  const on = members.filter((member) => member.share > 0);
  const busiest = Math.max(1, ...on.map((member) => member.in_flight));
  const gap = on.length > 1 && on.length < 120 ? GAP : 0;
  const parts = [];
  let from = 0;
  on.forEach((member, index) => {
    const to = from + member.share;
    const begin = from + Math.min(gap, member.share / 4);
    const middle = (begin + to) / 2;
    const thick = SHARES.thin + (SHARES.thick - SHARES.thin) * Math.max(0, Math.min(1, member.trust ?? 1));
    const kind = `member is-${member.state} tone-${index % 4}`;
    const whole = draw("g", { class: kind, "data-name": member.name, on: { pointerenter: () => chosen(member.name), pointerleave: () => chosen("") } },
      draw("path", { class: "points", d: bands(member.arcs ?? [], POINTS.inner, POINTS.outer) }),
      draw("path", { class: "share", d: band(begin, to, SHARES.inner, SHARES.inner + thick) }));
    if (member.in_flight > 0) {
      const long = LOAD.longest * (member.in_flight / busiest);
      const wide = Math.min(0.009, (to - begin) / 2);
      whole.append(draw("path", { class: "load", d: band(middle - wide, middle + wide, LOAD.from - long, LOAD.from) }));
    }
    if (member.share >= LABEL_SHARE) whole.append(label(member, middle));
    parts.push(whole);
    from = to;
  });
  const title = draw("text", { class: "centre", x: CENTRE, y: CENTRE - 6 });
  const more = draw("text", { class: "centre-more", x: CENTRE, y: CENTRE + 16 });
  const image = draw("svg", { viewBox: "-78 14 556 372", role: "img", "aria-label": told(capability, on) },
    draw("circle", { class: "rail", cx: CENTRE, cy: CENTRE, r: (POINTS.inner + POINTS.outer) / 2 }), parts, title, more);
  tell(image, members, "", capability);
  return image;
}

/** Points out the member `name`, or none, in the drawing `image`. */
export function tell(image, members, name, capability) {
  const member = members.find((each) => each.name === name);
  const [title, more] = image.querySelectorAll(".centre, .centre-more");
  title.textContent = member ? shortened(member.name, 20) : shortened(capability, 20);
  const size = members.filter((each) => each.share > 0).length;
  more.textContent = member ? `${percent(member.share)} · ${member.state} · ${member.in_flight} in flight` : `${size} ${size === 1 ? "member" : "members"}`;
  image.classList.toggle("choosing", Boolean(member));
  for (const part of image.querySelectorAll(".member")) part.classList.toggle("chosen", part.dataset.name === name);
}

function label(member, middle) {
  const [x, y] = at(middle, LABELS);
  const anchor = Math.abs(x - CENTRE) < 24 ? "middle" : x > CENTRE ? "start" : "end";
  const shift = -3 + (14 * (y - CENTRE)) / LABELS; // two lines: above, beside, below
  return draw("text", { class: "label", x: x.toFixed(1), y: (y + shift).toFixed(1), "text-anchor": anchor },
    draw("tspan", { text: shortened(member.name, 13) }),
    draw("tspan", { class: "label-share", x: x.toFixed(1), dy: "1.15em", text: percent(member.share) }));
}

function shortened(text, longest) {
  return text.length > longest ? `${text.slice(0, longest - 1)}…` : text;
}

function told(capability, on) {
  const some = on.slice(0, 12).map((member) => `${member.name} ${percent(member.share)}`).join(", ");
  return `The ring of ${capability}, ${on.length} members: ${some}${on.length > 12 ? " and others" : ""}. The table has all of it.`;
}
