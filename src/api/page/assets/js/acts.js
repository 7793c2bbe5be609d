// What is done on a click: orders, and dead letters.

import { get, post } from "./api.js";
import { ask } from "./dialog.js";
import { changed, doing, focus, say, state } from "./here.js";
import { reports } from "./model.js";
import { asking } from "./orders.js";
import { many } from "./words.js";

/** Letters that are deleted with one request. */
const AT_ONCE = 20;
/** The api lists them no more often. */
const BETWEEN_LISTS = 12_500;

/** Asks for something that was confirmed. Where the answer is lost it asks again, with the number
 * that makes both one request. */
async function request(whose, order) {
  // Exact in JSON: of 52 bits.
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  const nonce = 1 + (high >>> 12) * 2 ** 32 + low;
  const body = { ...whose, order, nonce };
  try {
    return await post("order", body);
  } catch (refused) {
    if (!refused.isOpen) throw refused;
  }
  try {
    return await post("order", body);
  } catch (refused) {
    if (refused.isOpen) refused.message += "; it may stand all the same: see Orders before you ask again";
    throw refused;
  }
}

export async function order(kind, shard) {
  const { whose } = state;
  const asked = await asking[kind](shard);
  if (!asked) return;
  await doing(async () => {
    await request(whose, asked);
    say("Asked for: the workers carry it out with their next look.");
  });
}

// The list of dead letters: read when it may have changed, but seldom, and the last request counts.

let reading = null;
const listed = { whose: null, count: "", ended: "", changed: 0, read: 0, asked: 0 };

/** Has the list read where other letters were given up or a redrive has ended since it was read. */
export function lettersMayHaveChanged() {
  const { whose } = state;
  if (!whose || state.at === 0) return;
  const now = Date.now();
  const ended = state.orders.redrives.filter((one) => one.ended).map((one) => one.id).join();
  const count = `${reports(state).givenUp}; ${ended}`;
  if (listed.whose !== whose) Object.assign(listed, { whose, count, ended, changed: now, read: 0, asked: 0 });
  if (listed.count !== count) {
    // The api lists anew after a redrive.
    if (listed.ended !== ended) listed.asked = 0;
    Object.assign(listed, { count, ended, changed: now });
  }
  if (!reading && listed.read < listed.changed && now - listed.asked >= BETWEEN_LISTS) readLetters();
}

async function readLetters() {
  const { whose } = state;
  listed.asked = Date.now();
  const mine = reading = doing(async () => {
    const found = await get("letters", whose);
    if (whose !== state.whose || mine !== reading) return;
    listed.read = Date.now() - found.age_ms;
    state.letters = found;
    const ids = new Set(found.letters.map((one) => one.letter.id));
    for (const id of state.contents.keys()) if (!ids.has(id)) state.contents.delete(id);
  });
  await mine;
  if (mine === reading) reading = null;
  changed();
}

export const onLetters = {
  toggle: (id) => doing(async () => {
    if (state.contents.delete(id)) return changed();
    const { whose } = state;
    const payload = await post("letter", { ...whose, id });
    if (whose !== state.whose) return;
    state.contents.set(id, { payload, room: undefined });
    say("The contents are shown; that was logged.");
  }),
  more(id, room) {
    state.contents.get(id).room = room;
    changed();
  },
  async redrive(id) {
    const { whose, letters } = state;
    const what = id ? "this dead letter" : letters.more ? "all dead letters" : many(letters.letters.length, "dead letter");
    const further = !id && letters.more ? " There are more of them than are listed here." : "";
    const text = `Its records are handed to the handler again, as they were. What it takes is removed from here.${further}`;
    if (!await ask({ title: `Redrive ${what}?`, text, action: "Redrive" })) return;
    await doing(async () => {
      const { redrive } = await request(whose, { redrive: id });
      if (whose !== state.whose) return;
      if (redrive !== null) state.asked.add(redrive);
      say("Asked for: the leader hands them over.");
      sayWhatWasRedriven();
    });
  },
  async remove(ids) {
    const { whose } = state;
    const what = ids.length === 1 ? "this dead letter" : many(ids.length, "dead letter");
    const text = "Its records are lost for good.";
    if (!await ask({ title: `Delete ${what}?`, text, action: "Delete", danger: true })) return;
    const busy = { done: 0, of: ids.length };
    state.busy = busy;
    // The buttons wait for the end, and their letters go.
    focus("letters");
    changed();
    await doing(async () => {
      for (let at = 0; at < ids.length && state.busy === busy; at += AT_ONCE) {
        await post("delete", { ...whose, ids: ids.slice(at, at + AT_ONCE) });
        busy.done = Math.min(ids.length, at + AT_ONCE);
        changed();
      }
      if (state.busy === busy) say(`${many(busy.done, "dead letter")} deleted.`);
    });
    // Another stream is looked at, or nobody is signed in: then it has stopped.
    if (state.busy !== busy) return;
    state.busy = null;
    await readLetters();
  },
};

/** Says how the redrives have ended that were asked for here. */
export function sayWhatWasRedriven() {
  for (const { id, ended } of state.orders.redrives) {
    if (!ended || !state.asked.delete(id)) continue;
    const { taken, left, why } = ended;
    say(`Redriven: ${many(taken, "dead letter")} taken, ${left} left${why ? `: ${why}` : ""}.`);
  }
}
