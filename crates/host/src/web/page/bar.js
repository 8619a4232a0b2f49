// The host's memory as one bar: its parts add up to the budget.

import { at, define, draw, make } from "./dom.js";
import { bytes } from "./format.js";

/** The parts of the budget, in order. Their sum is the budget at every moment. */
export function parts(host) {
  return [
    ["guests", "guests", host.granted],
    ["overhead", "VMMs", host.overhead],
    ["frames", "shared frames", host.frames],
    ["free", "free", host.free],
  ];
}

export function show(host) {
  const total = Math.max(host.budget, 1);
  let x = 0;
  const rects = parts(host).map(([kind, name, size]) => {
    const width = (size / total) * 1000;
    const rect = draw("rect", { class: kind, x, y: 0, width, height: 30 }, draw("title", {}, `${name}: ${bytes(size)}`));
    x += width;
    return rect;
  });
  const words = parts(host).map(([, name, size]) => `${name} ${bytes(size)}`).join(", ");
  const label = `Budget ${bytes(host.budget)}: ${words}`;
  at("bar").replaceChildren(
    draw("svg", { viewBox: "0 0 1000 30", preserveAspectRatio: "none", height: 30, role: "img", "aria-label": label }, ...rects),
  );
  const entry = ([kind, name, size]) => [make("span", {}, make("span", { class: `swatch ${kind}` }), ` ${name}`), bytes(size)];
  const more = [
    ["budget", bytes(host.budget)],
    ["taken by other programs", bytes(host.taken)],
    ["held by guests", bytes(host.held)],
    ["in balloons", bytes(host.ballooned)],
    ["saved by sharing", bytes(Math.max(host.shared - host.frames, 0) + host.zero)],
    ["compressed", `${bytes(host.compressed)} in ${bytes(host.store)}`],
    ["swapped", bytes(host.swapped)],
  ];
  define(at("legend"), [...parts(host).map(entry), ...more]);
}
