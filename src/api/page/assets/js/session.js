// Who is signed in, and the stream that is looked at: from signing in to being told what changes.

import { html } from "../vendor/lit-html/lit-html.js";
import { lettersMayHaveChanged, sayWhatWasRedriven } from "./acts.js";
import { events, get, post } from "./api.js";
import { changed, end, follow, say, state } from "./here.js";
import { take, turn } from "./model.js";

const RETRY = 2_000, LONGEST_RETRY = 10_000;
/** A session is gone on with when it has less than this left, and asked to once a minute. */
const RENEW_BELOW = 25 * 60, RENEW_AFTER = 60_000;

/** Other tabs have the same cookie. */
const tabs = new BroadcastChannel("streamgate");
tabs.onmessage = ({ data }) => {
  if (data === "signed out" && state.session) end("Signed out in another tab.");
  if (data === "signed in") resumeHere();
};

let until = 0;
let asked = 0;
let retry = RETRY;

/** Takes in who is signed in, and for how long; says what is another's than before. */
function known(session) {
  const before = state.session;
  until = Date.now() + session.seconds * 1000;
  state.session = session;
  if (!before) return;
  if (before.by !== session.by) say(`Signed in as ${session.by} in another tab: what is done here is done as ${session.by}.`);
  if (before.version !== session.version) state.isOld = true;
}

/** Somebody has signed in in another tab: what is asked for here is asked for in their name. */
async function resumeHere() {
  if (!state.session) return resume();
  try {
    known(await get("session"));
  } catch (refused) {
    if (refused.status === 401) return end("Not signed in any more.");
  }
  changed();
}

export function signIn() {
  return html`<main class="sign-in"><h1>Streamgate</h1>
    <form method="post" action="session" @submit=${onSignIn}>
      <p class="field"><label for="name">Your name</label>
        <input id="name" name="name" autocomplete="username" required maxlength="120">
        <small>It is kept with what you ask for.</small></p>
      <p class="field"><label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="off" required>
        <small>The <code>API_TOKEN</code> of this api.</small></p>
      <p role="alert" class="bad">${state.problem}</p>
      <p><button class="main">Sign in</button></p>
    </form></main>`;
}

async function onSignIn(event) {
  event.preventDefault();
  const form = event.target;
  const { token, name } = Object.fromEntries(new FormData(form));
  state.problem = "";
  try {
    const session = await post("session", { token, name });
    form.reset();
    tabs.postMessage("signed in");
    begin(session);
  } catch (refused) {
    state.problem = `Not signed in: ${refused.message}.`;
  }
  changed();
}

export async function signOut() {
  try {
    await post("sign-out");
  } catch (refused) {
    if (refused.status !== 401) return say(`Not signed out, for ${refused.message}: your session still holds.`);
  }
  tabs.postMessage("signed out");
  end("");
}

/** Goes on with the session of before, if there is one. */
export async function resume() {
  try {
    begin(await get("session"));
  } catch (refused) {
    if (refused.status !== 401) state.problem = refused.message;
  }
  changed();
}

function begin(session) {
  known(session);
  const asked = new URLSearchParams(location.search);
  const [consumer, label] = [asked.get("consumer"), asked.get("label")];
  const whose = consumer && label ? { consumer, label } : session.streams[0];
  if (whose) open(whose);
}

/** Looks at a stream from now on. */
export function open(whose) {
  turn(state, whose);
  history.replaceState(null, "", `?${new URLSearchParams(whose)}`);
  listen();
}

/** Looks at none, and says why. */
export function choose(refusal = "") {
  follow(() => {});
  turn(state, null);
  state.refusal = refusal;
  history.replaceState(null, "", location.pathname);
  changed();
}

function listen() {
  follow(events(state.whose, told, lost));
  changed();
}

function told(name, data) {
  if (name === "over") {
    follow(() => {});
    return again();
  }
  retry = RETRY;
  if (name === "ping") return;
  const before = state.orders;
  take(state, name, data);
  lettersMayHaveChanged();
  if (state.orders !== before) sayWhatWasRedriven();
  changed();
}

/** There are no more events: a stream that cannot be looked at is left, anything else may pass. */
function lost({ status, message, isOpen }) {
  if (status !== 401 && !isOpen) return choose(message);
  state.connection = "lost";
  state.lost = status === 0 ? "" : message;
  const wait = setTimeout(again, retry);
  retry = Math.min(2 * retry, LONGEST_RETRY);
  follow(() => clearTimeout(wait));
  changed();
}

/** Listens again, if the session holds: another tab may have gone on with it. */
async function again() {
  const { whose } = state;
  try {
    const session = await get("session");
    if (state.whose !== whose) return;
    known(session);
    listen();
  } catch (refused) {
    if (refused.status === 401) return end("Not signed in any more: half an hour has passed without a sign of you, or eight in all.");
    if (state.whose === whose) lost(refused);
  }
}

/** A click or a key: the session goes on. */
export async function onPerson() {
  const now = Date.now();
  if (!state.session || until - now > RENEW_BELOW * 1000 || now - asked < RENEW_AFTER) return;
  asked = now;
  try {
    known(await post("renew"));
  } catch (refused) {
    // Anything else is tried again with a later one.
    if (refused.status === 401) end("Not signed in any more.");
  }
}
