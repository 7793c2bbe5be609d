// The contents of a dead letter: the records of an event, as far as there is room for them. An event
// may have megabytes of small attributes, which no document has room for at once.

import { html, nothing } from "../vendor/lit-html/lit-html.js";

/** Characters that are shown at first, and how many more with each click. */
const ROOM = 20_000, MORE = 5;
/** What a value takes beside its text. */
const VALUE = 20;
/** As deep as DynamoDB lets items be. What is nested deeper is not its. */
const DEEPEST = 40;

const SCALARS = { S: undefined, N: "number", BOOL: "boolean", NULL: "null", B: "base64" };
const SETS = { SS: undefined, NS: "number", BS: "base64" };

/** What of an event has room: its records, and whether that is all. Numbers stay as they were
 * written. Pure. */
export function unfold(payload, room) {
  const left = { room };
  const list = Array.isArray(payload) ? payload : payload?.Records;
  // A CloudEvent's data are the record.
  const each = (one) => record(one?.data ?? one, left);
  const records = Array.isArray(list) ? fitting(list, left, each) : [{ parts: [["Payload", value(payload, left, 0)]] }];
  return { records, isWhole: left.room > 0 };
}

function record(one, left) {
  const { Keys, OldImage, NewImage, SequenceNumber } = one?.dynamodb ?? {};
  const images = [["Keys", Keys], ["Old image", OldImage], ["New image", NewImage]].filter(([, image]) => image);
  const parts = fitting(images, left, ([title, image]) => [title, { members: members(image, left, 0) }]);
  return { name: text(one?.eventName ?? "record", left).text, number: String(SequenceNumber ?? ""), parts };
}

/** As many of them as have room. */
function fitting(list, left, each) {
  const shown = [];
  for (const one of list) {
    if (left.room <= 0) break;
    shown.push(each(one));
  }
  return shown;
}

function text(said, left, kind) {
  const all = String(said);
  const shown = all.slice(0, Math.max(0, left.room));
  left.room -= VALUE + all.length;
  return { text: shown.length < all.length ? `${shown}…` : shown, kind };
}

function members(image, left, depth) {
  return fitting(Object.keys(image).sort(), left, (name) => [text(name, left).text, value(image[name], left, depth)]);
}

/** DynamoDB's typed value as plain words and lists; what is none as it stands in the payload. */
function value(typed, left, depth) {
  const [[type, inside] = []] = typed && typeof typed === "object" ? Object.entries(typed) : [];
  if (depth > DEEPEST) return text("nested too deep to be shown", left, "?");
  if (type in SCALARS && typeof inside !== "object") return text(type === "NULL" ? "null" : inside, left, SCALARS[type]);
  if (type in SETS && Array.isArray(inside)) {
    return { items: fitting(inside, left, (one) => text(one, left, SETS[type])), kind: "set" };
  }
  if (type === "L" && Array.isArray(inside)) {
    return { items: fitting(inside, left, (one) => value(one, left, depth + 1)), kind: "list" };
  }
  if (type === "M" && inside && typeof inside === "object") return { members: members(inside, left, depth + 1) };
  return text(plain(typed), left, "?");
}

function plain(any) {
  try {
    return JSON.stringify(any);
  } catch {
    return "nested too deep to be shown";
  }
}

function shown(value) {
  if (value.members) {
    return html`<dl>${value.members.map(([name, one]) => html`<div><dt>${name}</dt><dd>${shown(one)}</dd></div>`)}</dl>`;
  }
  if (value.items) return html`<ul class="values">${value.items.map((one) => html`<li>${shown(one)}</li>`)}</ul>`;
  return html`<span class="value">${value.text}</span>${value.kind ? html` <small>${value.kind}</small>` : nothing}`;
}

/** The contents that are shown of `open`, a payload and the room it has; `more` gives it more. */
export function contents(open, more) {
  const room = open.room ?? ROOM;
  if (open.unfoldedFor !== room) Object.assign(open, { unfolded: unfold(open.payload, room), unfoldedFor: room });
  const { records, isWhole } = open.unfolded;
  return html`<ol class="records">${records.map(({ name, number, parts }) => html`<li><h3>${name} <small>${number}</small></h3>
      ${parts.map(([title, part]) => html`<h4>${title}</h4>${shown(part)}`)}</li>`)}</ol>
    ${isWhole ? nothing : html`<p>That is not all of it. <button @click=${() => more(room * MORE)}>Show more</button></p>`}`;
}
