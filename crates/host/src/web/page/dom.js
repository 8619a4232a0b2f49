// Making elements. Text is always text: nothing that a guest or an operator named becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export function at(id) {
  return document.getElementById(id);
}

/** A new element with attributes and children. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** A new element of a drawing. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Replaces terms and what is said of them in a list of definitions. */
export function define(list, pairs) {
  list.replaceChildren(...pairs.map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))));
}
