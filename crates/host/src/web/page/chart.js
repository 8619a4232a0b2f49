// Curves over time.

import { draw, make } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [460, 150, 66, 18];
const KINDS = ["a", "b", "c", "d"];

/**
 * A figure of curves: each `{ name, points: [[seconds, value]] }`. `unit` writes a value, `ends`
 * names the first and the last moment.
 */
export function chart(title, curves, unit, ends) {
  const points = curves.flatMap((curve) => curve.points);
  const top = Math.max(1, ...points.map(([, value]) => value)) * 1.05;
  const times = points.map(([time]) => time);
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const x = (time) => LEFT + ((time - first) / Math.max(last - first, 1)) * (WIDTH - LEFT);
  const y = (value) => (1 - value / top) * (HEIGHT - BOTTOM);
  const lines = [0, 0.5, 1].map((part) => top * part).flatMap((value) => [
    draw("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }),
    draw("text", { class: "axis", x: LEFT - 6, y: Math.min(Math.max(y(value) + 4, 10), HEIGHT - BOTTOM), "text-anchor": "end" },
      unit(value)),
  ]);
  const paths = curves.map((curve, i) => {
    const path = curve.points.map(([time, value], n) => `${n === 0 ? "M" : "L"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`);
    return draw("path", { class: `curve ${KINDS[i]}`, d: path.join("") || "M0 0" });
  });
  const marks = [
    draw("text", { class: "axis", x: LEFT, y: HEIGHT - 4 }, ends[0]),
    draw("text", { class: "axis", x: WIDTH, y: HEIGHT - 4, "text-anchor": "end" }, ends[1]),
  ];
  const keys = curves.flatMap((curve, i) => [make("span", { class: `key ${KINDS[i]}` }, make("span", { class: "swatch" })), ` ${curve.name}  `]);
  return make("figure", {},
    make("figcaption", {}, make("strong", {}, title), " ", ...keys),
    draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title }, ...lines, ...paths, ...marks));
}
