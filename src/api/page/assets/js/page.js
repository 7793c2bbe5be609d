// The page: who is signed in, which stream is looked at, and what is done on a click.

import { html, render, nothing } from "../vendor/lit-html/lit-html.js";
import { live } from "../vendor/lit-html/directives/live.js";
import { events, get, post } from "./api.js";
import { ask } from "./dialog.js";
import { letters } from "./letters.js";
import { fresh, reports, take, turn } from "./model.js";
import { asking, orders } from "./orders.js";
import { draw as drawPlots, redraw } from "./plots.js";
import { numbers, plots, shards, trouble, workers } from "./sections.js";
import { many } from "./words.js";

const RETRY = 2000;
const RENEW = 5 * 60 * 1000;
const AT_ONCE = 20;

const state = fresh();
let source = null;
let renewed = Date.now();
let drawing = false;

/** Draws what has changed, with the browser's next frame. */
function changed() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    render(state.session ? page() : signIn(), document.getElementById("page"));
    drawPlots(state.history);
    document.title = state.session ? `${state.whose?.consumer ?? "Streamgate"} · Streamgate` : "Sign in · Streamgate";
  }, 0);
}

/** Says something to those who look and to those who listen. */
function say(text) {
  state.said = text;
  changed();
}

// Signing in and out.

function signIn() {
  return html`<main class="sign-in"><h1>Streamgate</h1>
    <form method="post" action="session" @submit=${onSignIn}>
      <p class="field"><label for="name">Your name</label>
        <input id="name" name="name" autocomplete="username" required maxlength="120">
        <small>It is kept with what you ask for.</small></p>
      <p class="field"><label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required>
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
    begin(session);
  } catch (refused) {
    state.problem = `Not signed in: ${refused.message}.`;
  }
  changed();
}

async function signOut() {
  await post("sign-out").catch(() => {});
  end("");
}

function end(problem) {
  source?.close();
  source = null;
  Object.assign(state, fresh(), { problem });
  changed();
}

function begin(session) {
  state.session = session;
  const asked = new URLSearchParams(location.search);
  const inAddress = asked.get("consumer") && asked.get("label")
    ? { consumer: asked.get("consumer"), label: asked.get("label") } : null;
  const whose = inAddress ?? session.streams[0] ?? null;
  if (whose) open(whose);
}

// The stream that is looked at.

function open(whose) {
  source?.close();
  turn(state, whose);
  history.replaceState(null, "", `?${new URLSearchParams(whose)}`);
  listen();
}

function listen() {
  source?.close();
  const mine = events(state.whose, (name, data) => {
    if (mine !== source) return;
    if (name === "over") return end("Not signed in any more: half an hour has passed without a sign of you, or eight in all.");
    if (name === "lost") return lost();
    const before = count();
    take(state, name, data);
    if (name !== "trouble" && (state.letters === null || count() !== before)) readLetters();
    progress();
    changed();
  });
  source = mine;
  changed();
}

/** What changes when there may be other dead letters than before. */
function count() {
  const { givenUp, redriving } = reports(state);
  return JSON.stringify([givenUp, state.orders.redrives.map((one) => one.ended), redriving]);
}

/** The connection is gone: is the api, or has the session ended? */
function lost() {
  source = null;
  state.connection = "lost";
  changed();
  setTimeout(async () => {
    if (!state.session || source) return;
    try {
      state.session = await get("session");
      listen();
    } catch (refused) {
      if (refused.status === 401) end("Not signed in any more.");
      else lost();
    }
  }, RETRY);
}

function onPerson() {
  if (!state.session || Date.now() - renewed < RENEW) return;
  renewed = Date.now();
  post("renew").then(() => { if (state.whose) listen(); }, () => {});
}

// What is done on a click.

async function doing(what) {
  try {
    await what();
  } catch (refused) {
    if (refused.status === 401) return end("Not signed in any more.");
    if (refused.status === undefined) throw refused;
    say(`That failed: ${refused.message}.`);
  }
}

async function order(kind, shard) {
  const asked = await asking[kind](shard);
  if (!asked) return;
  await doing(async () => {
    await post("order", { ...state.whose, order: asked });
    say("Asked for: the workers carry it out with their next look.");
  });
}

async function readLetters() {
  const whose = state.whose;
  await doing(async () => {
    const found = await get("letters", whose);
    if (whose === state.whose) state.letters = found;
  });
  changed();
}

const onLetters = {
  show: (id) => doing(async () => {
    const { payload } = await post("letter", { ...state.whose, id });
    state.contents.set(id, payload);
    say("The contents are shown; that was logged.");
  }),
  hide(id) {
    state.contents.delete(id);
    changed();
  },
  async redrive(id) {
    const all = state.letters.letters.length;
    const what = id ? "this dead letter" : many(all, "dead letter");
    const text = "Its records are handed to the handler again, as they were. What it takes is removed from here.";
    if (!await ask({ title: `Redrive ${what}?`, text, action: "Redrive" })) return;
    await doing(async () => {
      const before = new Set(state.orders.redrives.map((one) => one.id));
      await post("order", { ...state.whose, order: { redrive: id } });
      state.busy = { what: "Redrive", done: 0, of: id ? 1 : all, before };
      say("Asked for: the leader hands them over.");
    });
  },
  async remove(ids) {
    const what = ids.length === 1 ? "this dead letter" : many(ids.length, "dead letter");
    const text = "Its records are lost for good.";
    if (!await ask({ title: `Delete ${what}?`, text, action: "Delete", danger: true })) return;
    state.busy = { what: "Deletion", done: 0, of: ids.length };
    changed();
    await doing(async () => {
      for (let at = 0; at < ids.length; at += AT_ONCE) {
        await post("delete", { ...state.whose, ids: ids.slice(at, at + AT_ONCE) });
        state.busy.done = Math.min(ids.length, at + AT_ONCE);
        changed();
      }
      say(`${many(ids.length, "dead letter")} deleted.`);
    });
    state.busy = null;
    await readLetters();
  },
};

/** How far the redrive is that was asked for here. */
function progress() {
  const { busy } = state;
  if (!busy?.before) return;
  const mine = state.orders.redrives.find((one) => !busy.before.has(one.id));
  if (!mine) return;
  const now = reports(state).redriving.find((one) => one.id === mine.id);
  if (now) Object.assign(busy, { done: now.tried, of: now.of });
  if (!mine.ended) return;
  const { taken, left, why } = mine.ended;
  state.busy = null;
  say(`Redriven: ${many(taken, "dead letter")} taken, ${left} left${why ? `: ${why}` : ""}.`);
}

// The whole.

const CONNECTION = {
  connecting: "Connecting…", live: "Live", lost: "The connection to the api is lost; trying again…",
};

function choose() {
  const { streams, consumers } = state.session;
  const onForm = (event) => {
    event.preventDefault();
    const { consumer, stream } = Object.fromEntries(new FormData(event.target));
    open({ consumer, label: stream.trim().split("/").at(-1) });
  };
  return html`<section aria-labelledby="which"><h2 id="which">Which stream?</h2>
    ${streams.length > 0 ? nothing : html`<p>No consumer has called this replica of the api since its start. Name the stream to look at it all the same.</p>`}
    <form @submit=${onForm}>
      <p class="field"><label for="consumer">CONSUMER_NAME</label>
        <select id="consumer" name="consumer">${consumers.map((name) => html`<option>${name}</option>`)}</select></p>
      <p class="field"><label for="stream">STREAM_ARN, or its label</label><input id="stream" name="stream" required></p>
      <p><button class="main">Look</button></p>
    </form></section>`;
}

function header() {
  const { session, whose } = state;
  const key = (one) => `${one.consumer} ${one.label}`;
  const streams = [...session.streams];
  if (whose && !streams.some((one) => key(one) === key(whose))) streams.unshift(whose);
  const pick = (event) => {
    if (event.target.value === "") {
      source?.close();
      source = null;
      turn(state, null);
      return changed();
    }
    return open(streams[Number(event.target.value)]);
  };
  const selected = streams.findIndex((one) => whose && key(one) === key(whose));
  return html`<header><h1>Streamgate</h1>
    <label class="stream">Stream <select .value=${live(String(selected < 0 ? "" : selected))} @change=${pick}>
      ${streams.map((one, n) => html`<option value=${n} ?selected=${n === selected}>${one.consumer} · ${one.label}</option>`)}
      <option value="" ?selected=${selected < 0}>Another…</option></select></label>
    <p class=${`connection ${state.connection}`} role="status">${whose ? CONNECTION[state.connection] : ""}</p>
    <p class="who"><span>${session.by}, table ${session.table}</span> <button @click=${signOut}>Sign out</button></p></header>`;
}

function page() {
  const toggle = (name) => {
    state[name] = !state[name];
    changed();
  };
  const isThere = state.whose && state.at > 0;
  return html`<a class="skip" href="#content">To the content</a>${header()}
    <main id="content" tabindex="-1">
      <p class="said" role="status">${state.said}</p>
      ${state.trouble ? html`<p class="trouble" role="alert">The table cannot be looked at: ${state.trouble}</p>` : nothing}
      ${!state.whose ? choose() : !isThere ? html`<p>The table is being read…</p>` : html`
        ${numbers(state)}${plots(state)}${letters(state, onLetters)}${trouble(state)}
        ${shards(state, order, toggle)}${workers(state)}${orders(state, order)}`}
    </main><footer>Streamgate ${state.session.version}</footer>`;
}

for (const sign of ["pointerdown", "keydown"]) addEventListener(sign, onPerson, { passive: true });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(state.history));
new ResizeObserver(() => drawPlots(state.history)).observe(document.body);
get("session").then(begin, (refused) => {
  if (refused.status !== 401) state.problem = refused.message;
}).finally(changed);
