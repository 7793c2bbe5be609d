// The shards as a picture: parents to the left, children to the right, who reads which, and what
// waits for what. The table below it says the same in words.

import { html, svg, nothing } from "../vendor/lit-html/lit-html.js";
import { repeat } from "../vendor/lit-html/directives/repeat.js";
import { many, short } from "./words.js";

const COLUMN = 264, ROW = 34, WIDTH = 224, HEIGHT = 26, EDGE = 8;
const MOST_NODES = 400;

/** Where each shard stands: a tree for each that has no parent here. Pure. */
export function layout(shards, words, waiting, showEnded) {
  const all = new Map();
  for (const shard of shards.values()) {
    all.set(shard.id, { id: shard.id, parent: shard.parent, owner: shard.owner, word: words.get(shard.id) });
  }
  for (const { shard, parent } of waiting) {
    if (!all.has(shard)) all.set(shard, { id: shard, parent, owner: null, word: "waiting" });
  }
  // One that has ended is shown where a child of it has not.
  const parents = new Set([...all.values()].filter((n) => n.word !== "ended").map((n) => n.parent));
  const shown = [...all.values()].filter((n) => showEnded || n.word !== "ended" || parents.has(n.id));
  const nodes = shown.slice(-MOST_NODES);
  const here = new Map(nodes.map((node) => [node.id, node]));
  const children = new Map();
  const roots = [];
  for (const node of nodes) {
    if (!here.has(node.parent)) roots.push(node);
    else children.set(node.parent, [...(children.get(node.parent) ?? []), node]);
  }
  let row = 0;
  const place = (node, depth) => {
    node.x = EDGE + depth * COLUMN;
    const below = children.get(node.id) ?? [];
    below.forEach((child) => place(child, depth + 1));
    node.y = below.length === 0 ? EDGE + row++ * ROW
      : below.reduce((sum, child) => sum + child.y, 0) / below.length;
  };
  roots.forEach((root) => place(root, 0));
  const edges = nodes.filter((node) => here.has(node.parent))
    .map((node) => ({ id: node.id, from: here.get(node.parent), to: node }));
  const depth = Math.max(0, ...nodes.map((node) => node.x));
  return {
    nodes, edges, left: shown.length - nodes.length,
    width: depth + WIDTH + 2 * EDGE, height: Math.max(1, row) * ROW + EDGE,
  };
}

const WORDS = {
  read: "is read", free: "is read by nobody", paused: "is paused", retrying: "is retried",
  ended: "is read to its end", waiting: "waits for its parent",
};

function box(node, owners) {
  const owner = node.word === "ended" || !node.owner ? "" : owners.get(node.owner) ?? "";
  const about = `${node.id} ${WORDS[node.word]}${owner ? `, by ${node.owner}` : ""}`;
  return svg`<g class=${`node ${node.word}`} transform=${`translate(${node.x},${node.y})`}>
    <title>${about}</title>
    <rect width=${WIDTH} height=${HEIGHT} rx="5"></rect>
    <text x="8" y="17">${short(node.id).slice(0, 22)}</text>
    <text class="owner" x=${WIDTH - 8} y="17" text-anchor="end">${owner || (node.word === "read" ? "" : node.word)}</text>
  </g>`;
}

function line({ from, to }) {
  const [x1, y1] = [from.x + WIDTH, from.y + HEIGHT / 2];
  const [x2, y2] = [to.x, to.y + HEIGHT / 2];
  const middle = (x1 + x2) / 2;
  return svg`<path class=${`edge ${to.word}`} d=${`M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`}></path>`;
}

/** The picture. `owners` has a short name for each worker. */
export function lineage(shards, words, waiting, owners, showEnded) {
  const drawn = layout(shards, words, waiting, showEnded);
  if (drawn.nodes.length === 0) return html`<p class="none">No shard is known yet.</p>`;
  const count = (word) => drawn.nodes.filter((node) => node.word === word).length;
  const said = Object.keys(WORDS).filter((word) => count(word) > 0).map((word) => `${count(word)} ${word}`);
  return html`<div class="scroll picture" tabindex="0" role="region" aria-label="Picture of the shards">
    <svg role="img" aria-label=${`${many(drawn.nodes.length, "shard")}: ${said.join(", ")}. The table below lists them.`}
      width=${drawn.width} height=${drawn.height} viewBox=${`0 0 ${drawn.width} ${drawn.height}`}>
      ${repeat(drawn.edges, (edge) => edge.id, line)}
      ${repeat(drawn.nodes, (node) => node.id, (node) => box(node, owners))}
    </svg></div>
    ${drawn.left > 0 ? html`<p>${many(drawn.left, "older shard")} not drawn.</p>` : nothing}`;
}
