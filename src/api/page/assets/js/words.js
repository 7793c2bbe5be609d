// How times and numbers are said. Pure.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** Seconds as the two largest units that are not 0: "1 h 5 min". */
export function duration(seconds) {
  let left = Math.max(0, Math.round(seconds));
  if (left === 0) return "0 s";
  const parts = [];
  for (const [unit, size] of UNITS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count > 0) parts.push(`${count} ${unit}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** How long before `now` (both in milliseconds). */
export function ago(at, now) {
  return now - at < 1500 ? "now" : `${duration((now - at) / 1000)} ago`;
}

/** A time of the day, with the date where it is another day's. */
export function clock(at, now = Date.now()) {
  const time = new Date(at);
  const isToday = time.toDateString() === new Date(now).toDateString();
  const of = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  return isToday ? time.toLocaleTimeString([], of)
    : time.toLocaleString([], { ...of, month: "short", day: "numeric" });
}

/** Large numbers in groups. */
export function number(count) {
  return Number(count).toLocaleString("en", { maximumFractionDigits: 1 });
}

/** Bytes in the unit that fits. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  for (; count >= 1024 && unit < units.length - 1; unit++) count /= 1024;
  return `${number(count)} ${units[unit]}`;
}

/** "1 shard", "2 shards". */
export function many(count, what) {
  return `${number(count)} ${what}${count === 1 ? "" : "s"}`;
}

/** The part of a shard's id that tells it from others. */
export function short(shard) {
  return shard.replace(/^shardId-0*/, "");
}
