// What the page asks the api. The cookie goes with it by itself; no script can read it.

/** No event for so long: the connection is gone, whatever the browser believes. The api sends one
 * every ten seconds at the least. */
const SILENCE = 25_000;
/** The api itself gives up earlier. */
const PATIENCE = 40_000;

/** A request that failed, with the api's own sentence; status 0 where it did not answer. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }

  /** It may have been done all the same, and may be asked again. */
  get isOpen() {
    return this.status === 0 || this.status >= 500;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", redirect: "error", ...options });
  } catch {
    throw new Refused(0, "the api does not answer");
  }
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, detail ?? `status ${answer.status}`);
}

async function call(path, options) {
  const answer = await ask(path, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  return answer.json().catch(() => { throw new Refused(0, "the answer was cut off"); });
}

export function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body) });
}

export function get(path, whose) {
  return call(whose ? `${path}?${query(whose)}` : path);
}

export function query({ consumer, label }) {
  return new URLSearchParams({ consumer, label }).toString();
}

/**
 * Follows the events of a stream; `tell` is called with each one's name and data, `lost` with why
 * there are no more. The answer ends it. Not an EventSource: that hides why it is refused, and
 * takes a dead connection for a quiet one.
 */
export function events(whose, tell, lost) {
  const ended = new AbortController();
  let watch;
  const heard = () => {
    clearTimeout(watch);
    watch = setTimeout(() => ended.abort(), SILENCE);
  };
  let isWanted = true;
  const follow = async () => {
    heard();
    const answer = await ask(`events?${query(whose)}`, { signal: ended.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let begun = ""; ;) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) throw new Refused(0, "the connection is gone");
      heard();
      const whole = (begun + value).split("\n\n");
      begun = whole.pop();
      for (const one of whole) {
        // Comments, as a proxy may put between, say nothing.
        const found = /^event: (.*)\ndata: (.*)$/.exec(one);
        if (found && isWanted) tell(found[1], JSON.parse(found[2]));
      }
    }
  };
  follow().catch((why) => {
    clearTimeout(watch);
    ended.abort();
    const isOurs = why instanceof Refused;
    // What cannot be read, as from another version of the api, is no live page either.
    if (isWanted) lost(isOurs ? why : new Refused(0, "an event could not be read"));
    if (!isOurs) throw why;
  });
  return () => {
    isWanted = false;
    ended.abort();
  };
}
