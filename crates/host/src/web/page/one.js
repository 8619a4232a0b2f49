// One VM: what it has, its last hour, and why.

import { json, text } from "./api.js";
import { chart } from "./chart.js";
import { at, define } from "./dom.js";
import { bytes, moment, percent } from "./format.js";

const HOUR = 3600;
let name = null;

export function chosen() {
  return name;
}

export function close() {
  name = null;
  at("one").hidden = true;
}

/** Shows a VM and what is known of it. */
export async function open(vm) {
  name = vm;
  at("one-title").textContent = vm;
  at("one").hidden = false;
  await refresh();
}

/** Shows what the live state says of the VM. */
export function show(vms) {
  const vm = vms.find((one) => one.name === name);
  if (name === null || vm === undefined) {
    return;
  }
  const shares = typeof vm.shares === "string" ? vm.shares : vm.share_count;
  define(at("one-facts"), [
    ["power", vm.power],
    ["size", bytes(vm.size)],
    ["reservation", bytes(vm.reservation)],
    ["limit", bytes(vm.limit)],
    ["shares", `${shares}`],
    ["pool", vm.pool],
    ["held", bytes(vm.held)],
    ["waits for", bytes(vm.wanted)],
    ["stalled, some / full, 10 s", `${percent(vm.stall.some.avg10)} / ${percent(vm.stall.full.avg10)}`],
    ["faults", `${vm.faults}`],
    ["swap space", bytes(vm.paging.space)],
  ]);
}

/** Asks for its history and explanation anew. */
export async function refresh() {
  const vm = name;
  if (vm === null) {
    return;
  }
  const path = encodeURIComponent(vm);
  const [history, why] = await Promise.all([
    json(`/v1/history?vm=${path}`),
    text(`/v1/vms/${path}/explain?format=text`),
  ]);
  if (name !== vm) {
    return;
  }
  at("one-why").textContent = why;
  const last = history.samples.at(-1)?.seconds ?? 0;
  const samples = history.samples.filter((sample) => sample.seconds > last - HOUR);
  const since = new Date(history.since).getTime();
  const when = (sample) => (sample === undefined ? "" : moment(new Date(since + sample.seconds * 1000)));
  const ends = [when(samples[0]), when(samples.at(-1))];
  const curve = (label, of) => ({ name: label, points: samples.map((sample) => [sample.seconds, of(sample)]) });
  at("one-charts").replaceChildren(
    chart("Memory", [
      curve("held", (s) => s.held),
      curve("active", (s) => s.active),
      curve("entitled", (s) => s.entitlement),
    ], bytes, ends),
    chart("Taken and saved", [
      curve("balloon", (s) => s.ballooned),
      curve("shared", (s) => s.shared + s.zero),
      curve("compressed", (s) => s.compressed),
      curve("swapped", (s) => s.swapped),
    ], bytes, ends),
    chart("Stalled", [
      curve("some", (s) => s.stall_some),
      curve("full", (s) => s.stall_full),
    ], percent, ends),
    chart("Swap a second", [
      curve("out", (s) => s.out_rate),
      curve("in", (s) => s.in_rate),
    ], bytes, ends),
  );
}
