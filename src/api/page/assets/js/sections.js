// The parts of the page that only show: numbers, plots, workers, shards, what is retried, gaps.

import { html, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { lineage } from "./lineage.js";
import { isSilent, reports, states, summary } from "./model.js";
import { TITLES, said, since } from "./plots.js";
import { ago, bytes, clock, duration, many, number, short } from "./words.js";

const MOST_ROWS = 200;

/** A table that scrolls by itself where it is too wide, with the keyboard too. */
function table(caption, heads, rows) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`Table: ${caption}`}><table>
    <caption>${caption}</caption>
    <thead><tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr></thead>
    <tbody>${rows}</tbody></table></div>`;
}

function tile(label, value, isBad = false) {
  return html`<div class=${isBad ? "tile bad" : "tile"}><dt>${label}</dt><dd>${value}</dd></div>`;
}

export function numbers(state) {
  const now = summary(state);
  const letters = state.letters === null ? "–" : number(state.letters.letters.length) + (state.letters.more ? "+" : "");
  return html`<section aria-labelledby="now"><h2 id="now">Now</h2><dl class="tiles">
    ${tile("Behind", now.age === null ? "–" : now.age < 1 ? "at the tip" : duration(now.age), now.age === null || now.age > 60)}
    ${tile("Records/s", now.rate === null ? "–" : number(now.rate))}
    ${tile("Workers", number(now.workers), now.workers === 0)}
    ${tile("Open shards", number(now.open))}
    ${tile("Read by nobody", number(now.free), now.free > 0)}
    ${tile("Paused", number(now.paused), now.paused > 0)}
    ${tile("Retrying", number(now.retrying), now.retrying > 0)}
    ${tile("Gaps", number(now.gaps), now.gaps > 0)}
    ${tile("Dead letters", letters, letters !== "–" && letters !== "0")}
  </dl></section>`;
}

export function plots(state) {
  return html`<section aria-labelledby="hours"><h2 id="hours">The last hours</h2>
    <div class="plots">${Object.entries(TITLES).map(([name, title]) => html`<figure>
      <figcaption>${title}</figcaption>
      <div class="plot" id=${`plot-${name}`} role="img" aria-label=${said(name, state.history)}></div>
    </figure>`)}</div>
    <p class="note">Kept in the memory of this replica of the api${state.history ? html` ${since(state.history, state.at)}` : nothing}; six hours at most.</p></section>`;
}

export function workers(state) {
  const rows = repeat(state.workers, (worker) => worker.worker, (worker) => {
    const remarks = [
      worker.worker === state.leader && "leads", worker.draining && "stopping",
      isSilent(worker) && `silent for ${duration(worker.silent_ms / 1000)}`,
    ].filter(Boolean);
    return html`<tr><th scope="row">${worker.worker}</th><td class="n">${number(worker.shards)}</td>
      <td class="n">${bytes(worker.load)}/s</td><td>${duration(worker.age_ms / 1000)}</td>
      <td class="n">${number(worker.report.delivered ?? 0)}</td><td>${remarks.join(", ")}</td></tr>`;
  });
  return html`<section aria-labelledby="workers"><h2 id="workers">Workers</h2>
    ${state.workers.length === 0 ? html`<p class="none">No worker shows life.</p>`
      : table("Workers", ["Worker", "Shards", "Weight", "Behind", "Delivered", "Remarks"], rows)}</section>`;
}

/** Short names for the workers: what tells them from each other. */
function shortNames(state) {
  return new Map(state.workers.map(({ worker }) => [worker, worker.slice(-6)]));
}

export function shards(state, act, toggle) {
  const words = states(state);
  const { waiting, waitingInAll } = reports(state);
  const owners = shortNames(state);
  const all = [...state.shards.values()];
  const shown = all.filter((shard) => state.showEnded || words.get(shard.id) !== "ended");
  const rows = state.showAll ? shown : shown.slice(0, MOST_ROWS);
  const ended = all.filter((shard) => words.get(shard.id) === "ended").length;
  const row = (shard) => {
    const word = words.get(shard.id);
    const isPaused = state.orders.pauses.some((pause) => pause.shard === shard.id);
    const button = (name, text) => html`<button @click=${() => act(name, shard.id)} aria-label=${`${text} shard ${short(shard.id)}`}>${text}…</button>`;
    return html`<tr><th scope="row"><code>${short(shard.id)}</code></th>
      <td><span class=${`word ${word}`}>${word}</span></td>
      <td>${shard.owner && word !== "ended" ? html`<span title=${shard.owner}>${owners.get(shard.owner) ?? "one without a sign of life"}</span>, since ${ago(shard.since, state.at)}` : "–"}</td>
      <td>${shard.parent ? html`<code>${short(shard.parent)}</code>` : "–"}</td>
      <td class="position">${shard.position}</td><td>${ago(shard.written, state.at)}</td>
      <td class="buttons">${word === "ended" ? nothing : html`
        ${isPaused ? button("resume", "Resume") : button("pause", "Pause")}${button("seek", "Seek")}${button("skip", "Skip")}`}</td></tr>`;
  };
  return html`<section aria-labelledby="shards"><h2 id="shards">Shards</h2>
    ${lineage(state.shards, words, waiting, owners, state.showEnded)}
    ${waitingInAll === 0 ? nothing : html`<ul>
      ${waiting.map((one) => html`<li>Shard <code>${short(one.shard)}</code> waits until <code>${short(one.parent)}</code> is read to its end.</li>`)}
      ${waitingInAll > waiting.length ? html`<li>${many(waitingInAll - waiting.length, "more shard")} wait for their parents.</li>` : nothing}</ul>`}
    <p><label><input type="checkbox" .checked=${state.showEnded} @change=${() => toggle("showEnded")}> Show the shards that are read to their end (${number(ended)})</label></p>
    ${shown.length === 0 ? html`<p class="none">No shard is open.</p>` : table("Shards",
      ["Shard", "State", "Read by", "Continues", "Position", "Written", "Orders"],
      repeat(rows, (shard) => shard.id, row))}
    ${rows.length < shown.length ? html`<p><button @click=${() => toggle("showAll")}>Show all ${number(shown.length)}</button></p>` : nothing}
  </section>`;
}

export function trouble(state) {
  const { retrying, retryingInAll } = reports(state);
  const gaps = [...state.shards.values()].flatMap((shard) => shard.gaps.map((gap) => ({ ...gap, shard: shard.id })));
  gaps.sort((a, b) => b.found_at - a.found_at);
  return html`<section aria-labelledby="retries"><h2 id="retries">Batches that are tried again</h2>
      ${retrying.length === 0 ? html`<p class="none">There are none.</p>` : table("Batches that are tried again",
        ["Shard", "Attempts", "Since", "Last error"], repeat(retrying, (one) => one.shard, (one) => html`<tr>
          <th scope="row"><code>${short(one.shard)}</code></th><td class="n">${number(one.attempts)}</td>
          <td>${ago(one.since, state.at)}</td><td class="error">${one.error}</td></tr>`))}
      ${retryingInAll > retrying.length ? html`<p>And ${many(retryingInAll - retrying.length, "more shard")}.</p>` : nothing}
    </section>
    <section aria-labelledby="gaps"><h2 id="gaps">Gaps</h2>
      ${gaps.length === 0 ? html`<p class="none">There are none.</p>` : table("Records that were lost",
        ["Found", "Shard", "After", "Goes on with"], gaps.map((gap) => html`<tr>
          <td>${clock(gap.found_at, state.at)}</td><th scope="row"><code>${short(gap.shard)}</code></th>
          <td class="position">${gap.after ?? "–"}</td><td class="position">${gap.resumed_at ?? "–"}</td></tr>`))}
    </section>`;
}
