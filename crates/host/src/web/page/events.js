// The latest events, the newest first.

import { at, make } from "./dom.js";
import { moment } from "./format.js";
import * as states from "./states.js";

const MOST = 200;
let last = 0;

/** The path that answers with what is not known yet. */
export function path() {
  return `/v1/events?after=${last}`;
}

/** Takes new events, oldest first. */
export function take(news) {
  for (const event of news) {
    last = Math.max(last, event.id);
    const date = new Date(event.at);
    const state = states.told(event);
    if (state !== undefined) {
      states.note(date, state);
    }
    const words = event.vm === undefined ? event.text : `${event.vm}: ${event.text}`;
    at("events").prepend(make("li", {}, make("time", { datetime: event.at }, moment(date)), words));
  }
  while (at("events").children.length > MOST) {
    at("events").lastChild.remove();
  }
}
