// Dead letters: what was given up, its contents after a click that is logged, its second chance.

import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { contents } from "./contents.js";
import { standing } from "./model.js";
import { bytes, clock, many, short } from "./words.js";

/** A letter and what is known of its contents. */
function letter(listed, state, act) {
  const { id, reason, records, attempts, last_error: error, given_up_at: at, bytes: size } = listed.letter;
  const open = state.contents.get(id);
  const shard = short(id.split(":")[0]);
  const named = `${many(records, "record")} of shard ${shard}`;
  const isBusy = Boolean(state.busy);
  const word = open ? "Hide" : "Show";
  return html`<li class="letter" aria-label=${`Dead letter: ${named}`}>
    <p><b>${many(records, "record")}</b> of shard <code>${shard}</code>, given up ${clock(at, state.at)}
      (${reason}, ${many(attempts, "attempt")}, ${bytes(size)})${listed.whole ? nothing : html` <b class="bad">not whole</b>`}</p>
    ${error ? html`<p class="error">${error}</p>` : nothing}
    <p class="buttons">
      <button @click=${() => act.toggle(id)} ?disabled=${!listed.whole} aria-expanded=${open ? "true" : "false"} aria-label=${`${word} contents: ${named}`}>${word} contents</button>
      <button @click=${() => act.redrive(id)} ?disabled=${isBusy || !listed.whole} aria-label=${`Redrive: ${named}`}>Redrive…</button>
      <button class="danger" @click=${() => act.remove([id])} ?disabled=${isBusy} aria-label=${`Delete: ${named}`}>Delete…</button>
    </p>
    ${open ? contents(open, (room) => act.more(id, room)) : nothing}
    <p class="id"><small>${id}</small></p></li>`;
}

function bar(id, what, done, of) {
  const most = Math.max(1, of);
  return html`<p class="progress"><label for=${id}>${what}: ${done} of ${of}</label>
    <progress id=${id} max=${most} value=${Math.min(done, most)}></progress></p>`;
}

function redrive({ id, letter, asked, waits, done, of, isHeld }) {
  const held = isHeld ? "; letters of paused shards wait until they are resumed" : "";
  const what = `Redrive of ${letter ? "a dead letter" : "all dead letters"}, as ${asked.by} asked${held}`;
  return waits ? html`<p class="progress">${what}: ${waits}.</p>` : bar(`redrive-${id}`, what, done, of);
}

export function letters(state, act) {
  const all = state.letters;
  const list = all?.letters ?? [];
  const ids = list.map((listed) => listed.letter.id);
  return html`<section aria-labelledby="letters"><h2 id="letters">Dead letters</h2>
    ${state.busy ? bar("deletion", "Deletion", state.busy.done, state.busy.of) : nothing}
    ${repeat(standing(state), (one) => one.id, redrive)}
    ${all === null ? html`<p class="none">Being read…</p>` : list.length === 0 ? html`<p class="none">There are none.</p>` : html`
      <p>${many(list.length, "dead letter")}${all.more ? ", and more that are not shown" : ""}. Their contents are items of the table: each look at them is logged with your name.</p>
      <p class="buttons">
        <button @click=${() => act.redrive(null)} ?disabled=${Boolean(state.busy)}>Redrive all…</button>
        <button class="danger" @click=${() => act.remove(ids)} ?disabled=${Boolean(state.busy)}>Delete ${all.more ? "these" : "all"}…</button>
      </p>
      <ul class="letters">${repeat(list, (listed) => listed.letter.id, (listed) => letter(listed, state, act))}</ul>`}
  </section>`;
}
