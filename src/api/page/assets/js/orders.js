// What operators ask for: pause, resume, seek, skip; what stands, and who asked for what when.
// The commands `streamgate pause` and the others ask for the same, and are shown here too.

import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { ask } from "./dialog.js";
import { clock, many, short } from "./words.js";

const whole = (shard) => shard === null ? "the stream" : `shard ${short(shard)}`;

const WHERE = [
  ["latest", "what is written from now on"],
  ["trim_horizon", "the oldest record kept (up to 24 hours)"],
  ["at", "a time"],
];

function to(values) {
  return values.where === "at" ? { at_timestamp: new Date(values.time).getTime() } : values.where;
}

function said(where) {
  if (where === "latest") return "the latest record";
  return where === "trim_horizon" ? "the trim horizon" : clock(where.at_timestamp);
}

const seekFields = [
  { name: "where", label: "Go on with", options: WHERE, value: "latest" },
  { name: "time", label: "Time (of this browser's zone)", type: "datetime-local", when: (v) => v.where === "at" },
];

/** The questions and the orders they lead to; each resolves with an order or null. */
export const asking = {
  async pause(shard) {
    const text = `Nothing more of ${whole(shard)} is handed to the handler until it is resumed. Records that wait for more than 24 hours are lost.`;
    return await ask({ title: `Pause ${whole(shard)}?`, text, action: "Pause" }) && { pause: shard };
  },
  async resume(shard) {
    const text = shard === null ? "All pauses end, those of single shards too." : "It is read from where it stopped.";
    return await ask({ title: `Resume ${whole(shard)}?`, text, action: "Resume" }) && { resume: shard };
  },
  async seek(shard) {
    const text = shard === null
      ? "All shards are given up and begun anew there. What lies between is left out, or delivered again."
      : "What lies between is left out, or delivered again.";
    const values = await ask({ title: `Seek ${whole(shard)}?`, text, action: "Seek", danger: true, fields: seekFields });
    if (!values) return null;
    return shard === null ? { seek_stream: to(values) } : { seek_shard: [shard, to(values)] };
  },
  async skip(shard) {
    const fields = [{ name: "records", label: "Records", type: "number", value: 1, min: 1, max: 1000000 }];
    const text = `The records that come next in ${whole(shard)} are left out: the handler does not get them, and they are not kept.`;
    const values = await ask({ title: "Skip records?", text, action: "Skip", danger: true, fields });
    return values && { skip: [shard, Number(values.records)] };
  },
};

/** A request in words. */
function words(order) {
  const [[kind, about]] = Object.entries(order);
  switch (kind) {
    case "pause": return `pause ${whole(about)}`;
    case "resume": return `resume ${whole(about)}`;
    case "seek_shard": return `seek ${whole(about[0])} to ${said(about[1])}`;
    case "seek_stream": return `seek the stream to ${said(about)}`;
    case "skip": return `skip ${many(about[1], "record")} of ${whole(about[0])}`;
    default: return kind;
  }
}

function standing({ pauses, moves, reset, redrives }) {
  const lines = pauses.map((pause) => [`${whole(pause.shard)} is paused`, pause.asked]);
  for (const one of moves) {
    const what = one.to.skip === undefined ? `go to ${said(one.to.seek)}` : `skip ${many(one.to.skip, "record")}`;
    lines.push([`${whole(one.shard)} is to ${what}`, one.asked]);
  }
  if (reset) lines.push([`the stream is to begin anew with ${said(reset.to)}`, reset.asked]);
  for (const one of redrives.filter((redrive) => !redrive.ended)) {
    lines.push([`${one.letter ? "a dead letter is" : "all dead letters are"} to be redriven`, one.asked]);
  }
  return lines;
}

function past({ past, redrives }) {
  const lines = past.map((one) => ({ at: one.at, by: one.request.by, what: words(one.request.order) }));
  for (const { asked, letter, ended } of redrives) {
    const what = letter ? "redrive a dead letter" : "redrive all dead letters";
    const outcome = ended ? `: ${ended.taken} taken, ${ended.left} left` : "";
    lines.push({ at: asked.at, by: asked.by, what: what + outcome });
  }
  return lines.sort((a, b) => b.at - a.at);
}

export function orders(state, act) {
  const lines = standing(state.orders);
  const before = past(state.orders);
  const isPaused = state.orders.pauses.some((pause) => pause.shard === null);
  return html`<section aria-labelledby="orders"><h2 id="orders">Orders</h2>
    <p class="buttons">
      ${isPaused ? nothing : html`<button @click=${() => act("pause", null)}>Pause the stream…</button>`}
      ${state.orders.pauses.length > 0 ? html`<button @click=${() => act("resume", null)}>Resume all…</button>` : nothing}
      <button @click=${() => act("seek", null)}>Seek the stream…</button>
    </p>
    ${lines.length === 0 ? html`<p class="none">Nothing is asked for at the moment.</p>` : html`
      <ul>${lines.map(([what, asked]) => html`<li>${what}, as <b>${asked.by}</b> asked ${clock(asked.at, state.at)}</li>`)}</ul>`}
    ${before.length === 0 ? nothing : html`<div class="scroll" tabindex="0" role="region" aria-label="Table: asked last"><table>
      <caption>Asked last</caption><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th></tr></thead>
      <tbody>${before.map((one) => html`<tr><td>${clock(one.at, state.at)}</td><td>${one.by}</td><td>${one.what}</td></tr>`)}</tbody>
    </table></div>`}</section>`;
}
