// The page: hears the host's state and shows it. It changes nothing.

import { Refused, forget, hear, json, keep, kept, text } from "./api.js";
import * as bar from "./bar.js";
import { at } from "./dom.js";
import * as events from "./events.js";
import { bytes, moment, percent } from "./format.js";
import * as one from "./one.js";
import * as states from "./states.js";
import * as vms from "./vms.js";

/** What is asked for beside the live state, and how often, in milliseconds. */
const SLOWLY = 10e3;
/** How long until the page tries again after the connection has ended. */
const AGAIN = 2e3;

function now(state) {
  const { at: when, host, vms: all } = state;
  const date = new Date(when);
  at("state").textContent = `state ${host.state}`;
  at("state").className = host.state;
  at("summary").textContent =
    `${host.running} VMs run, ${host.stalled} stand still; stalled ${percent(host.stall.some.avg60)} some, ` +
    `${percent(host.stall.full.avg60)} full in the last minute; ${bytes(host.free)} of ${bytes(host.budget)} free; plimsolld ${host.version}`;
  at("connection").textContent = moment(date);
  document.title = `Plimsoll: ${host.state}`;
  states.note(date, host.state);
  states.show(date);
  bar.show(host);
  vms.show(all);
  one.show(all);
}

/** Events, and what is told in sentences. */
async function slowly() {
  const [news, why] = await Promise.all([json(events.path()), text("/v1/explain?format=text"), one.refresh()]);
  at("why").textContent = why;
  events.take(news);
}

function pause(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}

function askForToken(refused) {
  at("host").hidden = true;
  at("ask-token").hidden = false;
  at("refused").textContent = refused ? "The daemon refuses this token." : "";
  at("token").focus();
}

async function run() {
  try {
    await slowly();
  } catch (error) {
    if (error instanceof Refused) {
      throw error;
    }
  }
  at("ask-token").hidden = true;
  at("host").hidden = false;
  const timer = setInterval(() => slowly().catch(() => {}), SLOWLY);
  try {
    for (;;) {
      await hear("/v1/live", now).catch((error) => {
        if (error instanceof Refused) {
          throw error;
        }
      });
      at("connection").textContent = "the daemon does not answer: trying again";
      await pause(AGAIN);
    }
  } finally {
    clearInterval(timer);
  }
}

function start() {
  run().catch((error) => {
    if (!(error instanceof Refused)) {
      throw error;
    }
    forget();
    askForToken(true);
  });
}

vms.begin((name) => {
  vms.choose(name);
  one.open(name).catch(() => {});
  at("one").scrollIntoView({ block: "nearest" });
});
at("close").addEventListener("click", () => {
  one.close();
  vms.choose(null);
});
at("ask-token").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(at("token").value.trim());
  at("token").value = "";
  start();
});
if (kept()) {
  start();
} else {
  askForToken(false);
}
