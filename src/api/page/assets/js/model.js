// What the page knows, and how events change it. Pure: no document, no network.

const MOST_POINTS = 1080;
/** A leader that can redrive has begun after so long, in milliseconds. */
const BEGINS = 60_000;

export function fresh() {
  return {
    session: null, problem: "", refusal: "", whose: null, connection: "connecting", lost: "", trouble: "",
    at: 0, leader: null, workers: [], shards: new Map(), orders: none(), history: null,
    letters: null, contents: new Map(), busy: null, asked: new Set(), said: "", isOld: false,
    showEnded: false, showAll: false,
  };
}

function none() {
  return { pauses: [], moves: [], reset: null, redrives: [], past: [] };
}

/** Another stream: nothing of the one before is kept. */
export function turn(state, whose) {
  const { session, showEnded, isOld } = state;
  Object.assign(state, fresh(), { session, showEnded, isOld, whose });
}

/** Takes in an event with all there is, or with what has changed. */
export function take(state, name, data) {
  if (name === "trouble") {
    Object.assign(state, { connection: "live", trouble: data.why });
    return;
  }
  const isWhole = name === "view";
  Object.assign(state, { connection: "live", trouble: "", at: data.at, leader: data.leader });
  state.workers = data.workers;
  if (isWhole) state.shards = new Map();
  const ids = data.rows.map((row) => data.prefix + row[0]);
  data.rows.forEach(([, parent, owner, since, written, position, gaps], n) => {
    state.shards.set(ids[n], {
      id: ids[n],
      parent: typeof parent === "number" ? ids[parent] : parent,
      owner: owner === null ? null : data.owners[owner],
      since: since * 1000, written: written * 1000, position, gaps,
    });
  });
  for (const id of data.gone ?? []) state.shards.delete(id);
  if (data.orders) state.orders = data.orders;
  if (data.history) state.history = isWhole ? data.history : joined(state.history, data.history);
}

function joined(before, more) {
  // Another start of the api is another history.
  if (!before || before.since !== more.since) return more;
  const last = before.t.at(-1) ?? -1;
  const fresh = more.t.map((t, n) => [t, n]).filter(([t]) => t > last);
  const join = (name) => [...before[name], ...fresh.map(([, n]) => more[name][n])].slice(-MOST_POINTS);
  return { ...before, t: join("t"), age: join("age"), rate: join("rate") };
}

/** The workers' lists, joined. */
export function reports(state) {
  const all = (name) => state.workers.flatMap((w) => w.report[name] ?? []);
  const count = (name) => state.workers.reduce((sum, w) => sum + (w.report[name] ?? 0), 0);
  return {
    retrying: all("retrying").sort((a, b) => a.since - b.since), retryingInAll: count("retrying_in_all"),
    waiting: all("waiting"), waitingInAll: count("waiting_in_all"),
    givenUp: count("given_up"),
    redriving: state.workers.map((w) => w.report.redriving).filter(Boolean),
  };
}

export function isSilent(worker) {
  return worker.silent_ms >= Math.max(1, worker.failover_ms);
}

/** The redrives that stand, and how far they are or what they wait for. */
export function standing(state) {
  const leads = state.workers.some((w) => w.worker === state.leader && !isSilent(w));
  const { redriving } = reports(state);
  return state.orders.redrives.filter((one) => !one.ended).map((one) => {
    const now = redriving.find((other) => other.id === one.id);
    const isHeld = state.orders.pauses.length > 0;
    if (now) return { ...one, done: now.tried, of: now.of, isHeld };
    const others = redriving.length > 0;
    const waits = !leads ? "nobody leads: it waits for a consumer that runs"
      : others ? "it waits for the one before it"
        : state.at - one.asked.at < BEGINS ? "the leader begins soon"
          : "the leader has not begun: an older version of Streamgate cannot";
    return { ...one, waits };
  });
}

/** What each shard is doing, in one word, by id. */
export function states(state) {
  const alive = new Set(state.workers.filter((w) => !isSilent(w)).map((w) => w.worker));
  const retrying = new Set(reports(state).retrying.map((one) => one.shard));
  const paused = new Set(state.orders.pauses.map((pause) => pause.shard));
  const word = (shard) => {
    if (shard.position === "end") return "ended";
    if (paused.has(null) || paused.has(shard.id)) return "paused";
    if (retrying.has(shard.id)) return "retrying";
    return alive.has(shard.owner) ? "read" : "free";
  };
  return new Map([...state.shards.values()].map((shard) => [shard.id, word(shard)]));
}

/** What is true of the consumer as a whole. */
export function summary(state) {
  const words = [...states(state).values()];
  const count = (word) => words.filter((other) => other === word).length;
  const alive = state.workers.filter((w) => !isSilent(w));
  const [free, paused] = [count("free"), count("paused")];
  return {
    // How far behind a shard is that nobody reads, nobody knows.
    age: alive.length === 0 || free > 0 || paused > 0 ? null : Math.max(...alive.map((w) => w.age_ms)) / 1000,
    rate: state.history?.rate.at(-1) ?? null,
    workers: alive.length,
    open: words.length - count("ended"), ended: count("ended"), paused,
    free, retrying: reports(state).retryingInAll,
    gaps: [...state.shards.values()].reduce((sum, shard) => sum + shard.gaps.length, 0),
  };
}
