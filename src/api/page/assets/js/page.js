// The page as a whole: what is drawn when, and its head.

import { html, render, nothing } from "../vendor/lit-html/lit-html.js";
import { live } from "../vendor/lit-html/directives/live.js";
import { onLetters, order } from "./acts.js";
import { changed, show, state } from "./here.js";
import { letters } from "./letters.js";
import { orders } from "./orders.js";
import { draw as drawPlots, redraw } from "./plots.js";
import { numbers, plots, shards, trouble, workers } from "./sections.js";
import { choose, onPerson, open, resume, signIn, signOut } from "./session.js";

const CONNECTION = {
  connecting: () => "Connecting…",
  live: () => "Live",
  lost: () => state.lost ? `Not connected: ${state.lost}; trying again…` : "The connection to the api is lost; trying again…",
};

function which() {
  const { streams, consumers } = state.session;
  const onForm = (event) => {
    event.preventDefault();
    const { consumer, stream } = Object.fromEntries(new FormData(event.target));
    open({ consumer, label: stream.trim().split("/").at(-1) });
  };
  return html`<section aria-labelledby="which"><h2 id="which">Which stream?</h2>
    ${state.refusal ? html`<p class="bad" role="alert">It cannot be looked at: ${state.refusal}.</p>` : nothing}
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
  const pick = ({ target }) => target.value === "" ? choose() : open(streams[Number(target.value)]);
  const selected = streams.findIndex((one) => whose && key(one) === key(whose));
  return html`<header><h1>Streamgate</h1>
    <label class="stream">Stream <select .value=${live(String(selected < 0 ? "" : selected))} @change=${pick}>
      ${streams.map((one, n) => html`<option value=${n} ?selected=${n === selected}>${one.consumer} · ${one.label}</option>`)}
      <option value="" ?selected=${selected < 0}>Another…</option></select></label>
    <p class=${`connection ${state.connection}`} role="status">${whose ? CONNECTION[state.connection]() : ""}</p>
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
      ${state.isOld ? html`<p class="trouble" role="alert">The api is of another version now, ${state.session.version}, than this page.
        <button @click=${() => location.reload()}>Reload the page</button></p>` : nothing}
      ${state.trouble ? html`<p class="trouble" role="alert">The table cannot be looked at: ${state.trouble}</p>` : nothing}
      ${!state.whose ? which() : !isThere ? html`<p>The table is being read…</p>` : html`
        ${numbers(state)}${plots(state)}${letters(state, onLetters)}${trouble(state)}
        ${shards(state, order, toggle)}${workers(state)}${orders(state, order)}`}
    </main><footer>Streamgate ${state.session.version}</footer>`;
}

show(() => {
  render(state.session ? page() : signIn(), document.getElementById("page"));
  drawPlots(state.history);
  document.title = state.session ? `${state.whose?.consumer ?? "Streamgate"} · Streamgate` : "Sign in · Streamgate";
});
for (const sign of ["pointerdown", "keydown"]) addEventListener(sign, onPerson, { passive: true });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(state.history));
new ResizeObserver(() => drawPlots(state.history)).observe(document.body);
resume();
