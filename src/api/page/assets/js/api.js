// What the page asks the api. The cookie goes with it by itself; no script can read it.

/** A request that failed, with the api's own sentence. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", redirect: "error", ...options });
  } catch {
    throw new Refused(0, "the api does not answer");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, body.detail ?? `status ${answer.status}`);
  return body;
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

/** Opens the events of a stream; `tell` is called with each one's name and data. */
export function events(whose, tell) {
  const source = new EventSource(`events?${query(whose)}`);
  for (const name of ["view", "change", "trouble", "over"]) {
    source.addEventListener(name, (event) => tell(name, JSON.parse(event.data)));
  }
  source.onerror = () => {
    // It would try again by itself, but not say why it is refused.
    source.close();
    tell("lost", {});
  };
  return source;
}
