// The host's states over time: how short of free memory it was.

import { at, draw } from "./dom.js";
import { moment } from "./format.js";

const HOUR = 3600e3;
/** Changes of the state, oldest first: when, and to which. */
let changes = [];

/** Notes a state, now or in the past. */
export function note(date, state) {
  changes.push([date.getTime(), state]);
  changes.sort((a, b) => a[0] - b[0]);
  changes = changes.filter(([, one], i) => i === 0 || one !== changes[i - 1][1]);
}

/** The state that an event tells of, or none. */
export function told(event) {
  return event.vm === undefined ? /^state (high|clear|soft|hard|low):/.exec(event.text)?.[1] : undefined;
}

/** Draws the last hour. */
export function show(now) {
  const end = now.getTime();
  const begin = end - HOUR;
  const x = (time) => ((Math.max(time, begin) - begin) / HOUR) * 1000;
  const rects = changes.map(([from, state], i) => {
    const until = i + 1 < changes.length ? changes[i + 1][0] : end;
    const title = `${state}: ${moment(new Date(from))} to ${moment(new Date(until))}`;
    return draw("rect", { class: state, x: x(from), y: 0, width: Math.max(x(until) - x(from), 0), height: 18 },
      draw("title", {}, title));
  });
  const ticks = [60, 45, 30, 15].map((ago) => draw("text", { class: "axis", x: x(end - ago * 60e3) + 2, y: 31 }, `${ago} min ago`));
  const label = changes.length === 0 ? "No states yet" : `State ${changes.at(-1)[1]} since ${moment(new Date(changes.at(-1)[0]))}`;
  at("states").replaceChildren(
    draw("svg", { viewBox: "0 0 1000 34", role: "img", "aria-label": label }, ...rects, ...ticks),
  );
}
