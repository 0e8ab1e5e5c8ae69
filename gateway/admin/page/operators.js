// Who is an operator, and what operators have done: each asked for, each confirmed.

import { Refused, ask } from "./gateway.js";

const $ = (id) => document.getElementById(id);
const TOAST_MS = 6_000;

/** What the page offers of it; `changed` is called when somebody signed in or out. */
export function operators(changed) {
  let operator = false;
  let gone = 0;
  const session = $("session");
  const confirm = $("confirm");

  async function who() {
    try {
      const answer = await ask("session");
      put(answer.operator === true, answer.why ?? "");
    } catch (error) {
      put(false, error instanceof Refused ? error.message : "");
    }
  }

  function put(now, why) {
    const was = operator;
    operator = now;
    document.body.dataset.operator = String(now);
    $("who").textContent = now ? "operator" : "read-only";
    $("who").title = why;
    $("sign").hidden = false;
    $("sign").textContent = now ? "Sign out" : "Sign in";
    if (was !== now) changed();
  }

  $("sign").addEventListener("click", async () => {
    if (!operator) return signIn();
    await ask("session", { method: "DELETE" }).catch((error) => toast(error.message, "bad"));
    return who();
  });

  function signIn() {
    if (session.open) return;
    const wrong = session.querySelector(".wrong");
    session.querySelector("form").reset();
    wrong.hidden = true;
    session.showModal();
  }

  session.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const wrong = session.querySelector(".wrong");
    try {
      await ask("session", { method: "POST", body: { token: event.target.elements.token.value } });
      session.close();
      await who();
      toast("You are signed in as operator.");
    } catch (error) {
      wrong.textContent = error.message;
      wrong.hidden = false;
      event.target.elements.token.select();
    }
  });
  for (const dialog of [session, confirm]) {
    dialog.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => dialog.querySelector("form").reset());
  }

  /** Asks whether it shall be; `true` when it shall. */
  function confirmed(title, text, verb) {
    $("confirm-title").textContent = title;
    $("confirm-text").textContent = text;
    $("confirm-do").textContent = verb;
    confirm.returnValue = "";
    confirm.showModal();
    return new Promise((resolve) => confirm.addEventListener("close", () => resolve(confirm.returnValue === "do"), { once: true }));
  }
  $("confirm-do").value = "do";

  function toast(text, tone = "") {
    clearTimeout(gone);
    $("toast").textContent = text;
    $("toast").dataset.tone = tone;
    $("toast").hidden = false;
    gone = setTimeout(() => { $("toast").hidden = true; }, TOAST_MS);
  }

  /** Has an operation done, and says what came of it. */
  async function operate(path, done, body = {}) {
    try {
      await ask(path, { method: "POST", body });
      toast(done);
    } catch (error) {
      toast(error.message, "bad");
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) await who();
    }
  }

  let offered = false;
  return {
    operator: () => operator,
    who,
    confirm: confirmed,
    operate,
    /** Nothing is answered without proof: the form opens by itself, once. */
    refused() {
      if (!offered) signIn();
      offered = true;
    },
  };
}
