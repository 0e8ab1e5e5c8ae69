// What is asked of the gateway: answers, and the live stream.

/** An answer that was no success. */
export class Refused extends Error {
  constructor(status, why, answer) {
    super(why || `the gateway answered ${status}`);
    this.status = status;
    this.answer = answer;
  }
}

const TIMEOUT_MS = 10_000;

/** Asks for JSON; `path` is relative to the page.  Throws `Refused`, or what `fetch` throws. */
export async function ask(path, { method = "GET", body } = {}) {
  const response = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = null; // refusals come as plain text, too
  }
  if (response.ok) return answer;
  const problems = Array.isArray(answer?.problems) ? answer.problems.join("\n") : "";
  throw new Refused(response.status, problems || answer?.why || answer?.detail || answer?.error || text.trim(), answer);
}

/** A query of those of `values` that are not empty. */
export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value);
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
}

const SILENCE_MS = 5_000; // a state comes each second
const WAITS_MS = [500, 1_000, 2_000, 5_000];

/** The live stream.  It connects again by itself, and says when there is no connection. */
export class Stream {
  #told;
  #source = null;
  #query = "";
  #tries = 0;
  #timer = 0;
  #silence = 0;

  /** `told` has `handoff(record)`, `state(state)` and `link(state)`: connecting, live or disconnected. */
  constructor(told) {
    this.#told = told;
    addEventListener("online", () => this.#again(0));
  }

  /** Connects, or connects anew with other filters. */
  open(filters) {
    this.#query = query(filters);
    this.#tries = 0;
    this.#again(0);
  }

  /** Connects anew, now. */
  retry() {
    this.#again(0);
  }

  #again(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#connect(), wait);
  }

  #connect() {
    this.#source?.close();
    const source = new EventSource(`live${this.#query}`);
    this.#source = source;
    source.addEventListener("handoff", (event) => this.#told.handoff(JSON.parse(event.data)));
    source.addEventListener("state", (event) => {
      this.#tries = 0;
      this.#told.link("live");
      this.#listen();
      this.#told.state(JSON.parse(event.data));
    });
    source.addEventListener("error", () => source === this.#source && this.#lost());
    this.#listen();
  }

  #listen() {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(), SILENCE_MS);
  }

  #lost() {
    clearTimeout(this.#silence);
    this.#source?.close();
    this.#told.link("disconnected");
    this.#again(WAITS_MS[Math.min(this.#tries++, WAITS_MS.length - 1)]);
  }
}

/** Calls `ask` now and every `ms` while the page is seen, one call at a time, until `stop`. */
export class Every {
  #ask;
  #ms;
  #timer = 0;
  #run = 0;

  constructor(ms, ask) {
    this.#ms = ms;
    this.#ask = ask;
  }

  start() {
    this.stop();
    this.#turn(this.#run);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#run++;
  }

  async #turn(run) {
    if (document.visibilityState === "visible") await this.#ask();
    if (run === this.#run) this.#timer = setTimeout(() => this.#turn(run), this.#ms);
  }
}
