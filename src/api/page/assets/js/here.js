// What the page holds: the state, its drawing, and the connection to the stream that is looked at.
// Others change the state and say `changed`; how it is drawn is theirs who give `drawn` to `show`.

import { Refused } from "./api.js";
import { dismiss } from "./dialog.js";
import { fresh } from "./model.js";

export const state = fresh();

let draw = () => {};
let drawing = false;
let leave = () => {};

/** Has `drawn` called whenever something has changed. */
export function show(drawn) {
  draw = drawn;
}

/** Draws what has changed, with the browser's next turn. */
export function changed() {
  if (drawing) return;
  drawing = true;
  setTimeout(() => {
    drawing = false;
    keepingFocus(draw);
  }, 0);
}

/** Who was on something that is gone is put before the section it was in, not before the page. */
function keepingFocus(redraw) {
  const before = document.activeElement;
  const section = before?.closest("section")?.getAttribute("aria-labelledby");
  redraw();
  if (before && before !== document.body && !before.isConnected) focus(section ?? "content");
}

/** Puts the focus on a heading, or on what can be reached with the keyboard. */
export function focus(id) {
  const there = document.getElementById(id) ?? document.querySelector("main input");
  if (!there) return;
  if (there.matches("h2")) there.tabIndex = -1;
  there.focus();
}

/** Says something to those who look and to those who listen, also if it is the same again. */
export function say(text) {
  state.said = text === state.said ? `${text}\u00a0` : text;
  changed();
}

/** Follows something in place of what was followed before; it is called to stop that. */
export function follow(stop) {
  leave();
  leave = stop;
}

/** Nobody is signed in any more. */
export function end(problem) {
  follow(() => {});
  dismiss();
  Object.assign(state, fresh(), { problem });
  changed();
}

/** Does something, and says what it was refused with. */
export async function doing(what) {
  try {
    await what();
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    if (refused.status === 401) end("Not signed in any more.");
    else say(`That failed: ${refused.message}.`);
  }
}
