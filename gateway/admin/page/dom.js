// Elements and texts.  What comes from the network becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `props` are attributes, but for `text` and `on`, its listeners; `null` and `false` leave one out. */
export function el(tag, props = {}, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** Likewise, in SVG. */
export function draw(tag, props = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** One of the page's signs, for the eye only: words stand beside it. */
export function sign(name) {
  return draw("svg", { class: `sign sign-${name}`, "aria-hidden": "true", viewBox: "0 0 16 16" },
    draw("use", { href: `#i-${name}` }));
}

/** A state in sign and word. */
export function mark(name, word = name) {
  return el("span", { class: `mark mark-${name}` }, sign(name), el("span", { text: word }));
}

/** A SPIFFE id, short: the last segments of its path, and all of it for who points at it. */
export function principal(id) {
  if (!id) return el("span", { class: "none", text: "–" });
  const path = id.replace(/^spiffe:\/\/[^/]*\//, "").split("/").filter((part) => part !== "ns" && part !== "sa");
  const last = path.pop() ?? id;
  const before = path.length ? `${path.join("/")}/` : "";
  return el("span", { class: "principal", title: id }, el("span", { class: "soft", text: before }), el("b", { text: last }));
}

/** A text, or a dash that stands for none. */
export function orNone(text) {
  return text === "" || text === null || text === undefined
    ? el("span", { class: "none", text: "–" }) : document.createTextNode(text);
}

/** Milliseconds for people. */
export function duration(ms) {
  if (ms === undefined || ms === null) return "–";
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${ms.toFixed(ms < 100 ? 1 : 0)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** A count, with the separators of the reader's language. */
export function count(value) {
  return Number(value ?? 0).toLocaleString(undefined, { maximumFractionDigits: 0 });
}

/** A rate or a small figure: with a decimal while it is below ten. */
export function figure(value) {
  const digits = value && Math.abs(value) < 10 ? 1 : 0;
  return Number(value ?? 0).toLocaleString(undefined, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

/** A share of 1, in percent. */
export function percent(share) {
  return `${(100 * (share ?? 0)).toFixed(share && share < 0.1 ? 1 : 0)} %`;
}

/** A time: of the day with `day` false, else the date, too; as it was sent for who points at it. */
export function moment(iso, { day = false, milliseconds = true } = {}) {
  const when = new Date(typeof iso === "number" ? iso * 1000 : iso);
  if (!iso || Number.isNaN(when.getTime())) return el("span", { class: "none", text: "–" });
  const two = (value) => String(value).padStart(2, "0");
  let text = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
  if (milliseconds) text += `.${String(when.getMilliseconds()).padStart(3, "0")}`;
  if (day) text = `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${text}`;
  return el("time", { datetime: when.toISOString(), title: when.toISOString(), text });
}

/** Makes `parent` hold one child for each of `items`, in their order; those that stay keep their place and the focus. */
export function reconcile(parent, items, key, make, update) {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = there.get(name);
    if (child === undefined) {
      child = make(item);
      child.dataset.key = name;
    }
    there.delete(name);
    update?.(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of there.values()) child.remove();
}

/** A table with a caption and a head; `columns` are titles, or `[title, class]`. */
export function table(caption, columns, { unseen = false, name = "" } = {}) {
  const body = el("tbody", { role: "rowgroup" });
  const heads = columns.map((column) => {
    const [title, kind] = Array.isArray(column) ? column : [column, null];
    return el("th", { scope: "col", role: "columnheader", class: kind, text: title });
  });
  const whole = el("table", { role: "table", class: name || null },
    el("caption", { class: unseen ? "unseen" : null, text: caption }),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, heads)), body);
  return { whole, body };
}

/** A row's cell; `label` is its column's title, for narrow screens. */
export function cell(label, props = {}, ...children) {
  return el("td", { role: "cell", "data-label": label, ...props }, ...children);
}

/** A list of names and values; values are texts or elements, those without one are left out. */
export function facts(pairs, props = {}) {
  const rows = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return el("dl", { class: "facts", ...props },
    rows.map(([name, value]) => el("div", {}, el("dt", { text: name }), el("dd", {}, value instanceof Node ? value : String(value)))));
}

/** JSON values as nested lists of names and values. */
export function told(value) {
  if (value === null || value === undefined || value === "") return el("span", { class: "none", text: "–" });
  if (Array.isArray(value)) {
    return value.length ? el("ul", { class: "plain" }, value.map((each) => el("li", {}, told(each)))) : el("span", { class: "none", text: "none" });
  }
  if (typeof value === "object") {
    const entries = Object.entries(value);
    return entries.length ? facts(entries.map(([name, each]) => [name.replaceAll("_", " "), told(each)])) : el("span", { class: "none", text: "none" });
  }
  return document.createTextNode(typeof value === "boolean" ? (value ? "yes" : "no") : String(value));
}
