// Dead letters: what was given up, its contents after a click that is logged, its second chance.

import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { bytes, clock, many, short } from "./words.js";

/** DynamoDB's typed value as plain words and lists. Pure; numbers stay as they were written. */
export function unfold(value) {
  const [[type, inside] = []] = Object.entries(value ?? {});
  switch (type) {
    case "S": return { text: inside };
    case "N": return { text: inside, kind: "number" };
    case "BOOL": return { text: String(inside), kind: "boolean" };
    case "NULL": return { text: "null", kind: "null" };
    case "B": return { text: inside, kind: "base64" };
    case "SS": return { items: inside.map((text) => ({ text })), kind: "set" };
    case "NS": return { items: inside.map((text) => ({ text, kind: "number" })), kind: "set" };
    case "BS": return { items: inside.map((text) => ({ text, kind: "base64" })), kind: "set" };
    case "L": return { items: inside.map(unfold), kind: "list" };
    case "M": return { members: members(inside) };
    default: return { text: JSON.stringify(value), kind: "?" };
  }
}

function members(image) {
  return Object.keys(image ?? {}).sort().map((name) => [name, unfold(image[name])]);
}

function shown(value) {
  if (value.members) {
    return html`<dl>${value.members.map(([name, one]) => html`<div><dt>${name}</dt><dd>${shown(one)}</dd></div>`)}</dl>`;
  }
  if (value.items) return html`<ul class="values">${value.items.map((one) => html`<li>${shown(one)}</li>`)}</ul>`;
  return html`<span class="value">${value.text}</span>${value.kind ? html` <small>${value.kind}</small>` : nothing}`;
}

function record(one) {
  const { Keys, OldImage, NewImage, SequenceNumber } = one.dynamodb ?? {};
  const part = (title, image) => image ? html`<h4>${title}</h4>${shown({ members: members(image) })}` : nothing;
  return html`<li><h3>${one.eventName ?? "record"} <small>${SequenceNumber ?? ""}</small></h3>
    ${part("Keys", Keys)}${part("Old image", OldImage)}${part("New image", NewImage)}</li>`;
}

function contents(payload) {
  return html`<ol class="records">${(payload.Records ?? []).map(record)}</ol>`;
}

/** A letter and what is known of its contents. */
function letter(listed, state, act) {
  const { id, reason, records, attempts, last_error: error, given_up_at: at, bytes: size } = listed.letter;
  const payload = state.contents.get(id);
  const shard = short(id.split(":")[0]);
  const named = `${many(records, "record")} of shard ${shard}`;
  const isBusy = Boolean(state.busy);
  return html`<li class="letter" aria-label=${`Dead letter: ${named}`}>
    <p><b>${many(records, "record")}</b> of shard <code>${shard}</code>, given up ${clock(at, state.at)}
      (${reason}, ${many(attempts, "attempt")}, ${bytes(size)})${listed.whole ? nothing : html` <b class="bad">not whole</b>`}</p>
    ${error ? html`<p class="error">${error}</p>` : nothing}
    <p class="buttons">
      ${payload
        ? html`<button @click=${() => act.hide(id)} aria-label=${`Hide contents: ${named}`}>Hide contents</button>`
        : html`<button @click=${() => act.show(id)} ?disabled=${!listed.whole} aria-label=${`Show contents: ${named}`}>Show contents</button>`}
      <button @click=${() => act.redrive(id)} ?disabled=${isBusy || !listed.whole} aria-label=${`Redrive: ${named}`}>Redrive…</button>
      <button class="danger" @click=${() => act.remove([id])} ?disabled=${isBusy} aria-label=${`Delete: ${named}`}>Delete…</button>
    </p>
    ${payload ? contents(payload) : nothing}
    <p class="id"><small>${id}</small></p></li>`;
}

function progress(busy) {
  if (!busy) return nothing;
  const of = Math.max(1, busy.of);
  return html`<p class="progress"><label for="progress">${busy.what}: ${busy.done} of ${busy.of}</label>
    <progress id="progress" max=${of} value=${Math.min(busy.done, of)}></progress></p>`;
}

export function letters(state, act) {
  const all = state.letters;
  const list = all?.letters ?? [];
  const ids = list.map((listed) => listed.letter.id);
  return html`<section aria-labelledby="letters"><h2 id="letters">Dead letters</h2>
    ${progress(state.busy)}
    ${all === null ? html`<p class="none">Being read…</p>` : list.length === 0 ? html`<p class="none">There are none.</p>` : html`
      <p>${many(list.length, "dead letter")}${all.more ? ", and more that are not shown" : ""}. Their contents are items of the table: each look at them is logged with your name.</p>
      <p class="buttons">
        <button @click=${() => act.redrive(null)} ?disabled=${Boolean(state.busy)}>Redrive all…</button>
        <button class="danger" @click=${() => act.remove(ids)} ?disabled=${Boolean(state.busy)}>Delete ${all.more ? "these" : "all"}…</button>
      </p>
      <ul class="letters">${repeat(list, (listed) => listed.letter.id, (listed) => letter(listed, state, act))}</ul>`}
  </section>`;
}
