// Iterator age and throughput over the last hours, by uPlot. It draws on a canvas and styles
// through the document's objects, which the policy of the page allows.

/* global uPlot */
import { clock, duration, number } from "./words.js";

const HEIGHT = 150;
/** Seconds after its start in which the api takes the first point of who is looked at from then on. */
const STARTS = 90;

const PLOTS = {
  age: { title: "Iterator age", label: "age", least: 4, say: (value) => value === null ? "–" : duration(value) },
  rate: { title: "Throughput", label: "records/s", least: 1, say: (value) => value === null ? "–" : number(value) },
};

const drawn = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Where the history begins with a start of the api: what was before is not zero, it is not known. */
function begins(chart, at) {
  const { ctx, bbox: { left, top, width, height } } = chart;
  const x = Math.round(chart.valToPos(at, "x", true));
  if (!(x >= left && x <= left + width)) return;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour("--ink-soft");
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(x, top);
  ctx.lineTo(x, top + height);
  ctx.stroke();
  ctx.font = `${11 * devicePixelRatio}px system-ui`;
  const isRight = x > left + width / 2;
  ctx.textAlign = isRight ? "right" : "left";
  ctx.fillText("api started", x + (isRight ? -4 : 4) * devicePixelRatio, top + 12 * devicePixelRatio);
  ctx.restore();
}

function plot(name, element, data, began) {
  const { label, least, say } = PLOTS[name];
  const [ink, faint] = [colour("--ink-soft"), colour("--line")];
  const axis = { stroke: ink, grid: { stroke: faint, width: 1 }, ticks: { stroke: faint }, font: "12px system-ui" };
  return new uPlot({
    width: element.clientWidth || 300, height: HEIGHT, legend: { live: true },
    cursor: { y: false, drag: { x: true, y: false } },
    hooks: { draw: [(chart) => begins(chart, began.at)] },
    // A quarter of an hour at the least: one point alone has no scale.
    scales: { x: { range: (_, from, to) => [Math.min(from, to - 900, from - began.at < STARTS ? began.at : from), to] }, y: { range: (_, __, most) => [0, Math.max(least, most * 1.1)] } },
    series: [{ label: "time", value: (_, at) => at === null ? "–" : clock(at * 1000) }, {
      label, stroke: colour(`--${name}`), width: 2, fill: colour(`--${name}-soft`), spanGaps: false,
      points: { show: data[0].length < 40 }, value: (_, value) => say(value ?? null),
    }],
    axes: [{ ...axis, values: (_, times) => times.map((at) => clock(at * 1000).replace(/:00$/, "")) }, { ...axis, size: 60, values: (_, values) => values.map((value) => say(value)) }],
  }, data, element);
}

/** Draws what is new into the elements, which are the document's. */
export function draw(history) {
  for (const name of Object.keys(PLOTS)) {
    const element = document.getElementById(`plot-${name}`);
    // A browser that cannot run uPlot still shows the rest.
    if (!element || !history || typeof uPlot === "undefined") {
      drawn.get(name)?.chart.destroy();
      drawn.delete(name);
      continue;
    }
    const data = [history.t.map((t) => history.since + t), history[name]];
    const before = drawn.get(name);
    if (before?.element === element && before.width === element.clientWidth) {
      before.began.at = history.since;
      if (before.history !== history) before.chart.setData(data);
    } else {
      before?.chart.destroy();
      const began = { at: history.since };
      drawn.set(name, { element, began, width: element.clientWidth, chart: plot(name, element, data, began) });
    }
    drawn.get(name).history = history;
  }
}

/** Colours and sizes are another's now. */
export function redraw(history) {
  drawn.forEach((one) => one.chart.destroy());
  drawn.clear();
  draw(history);
}

/** Since when there is a history, in words. */
export function since(history, now = undefined) {
  const started = clock(history.since * 1000, now);
  const first = history.t[0] ?? 0;
  if (first < STARTS) return `since ${started}, when it was started`;
  return `since ${clock((history.since + first) * 1000, now)}; it was started at ${started}`;
}

/** What a plot shows, in words. */
export function said(name, history) {
  const { title, say } = PLOTS[name];
  const values = (history?.[name] ?? []).filter((value) => value !== null);
  if (values.length === 0) return `${title}: nothing measured yet`;
  return `${title}: now ${say(values.at(-1))}, at most ${say(Math.max(...values))}, ${since(history)}`;
}

export const TITLES = Object.fromEntries(Object.entries(PLOTS).map(([name, { title }]) => [name, title]));
