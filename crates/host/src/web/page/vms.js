// The table of VMs: stalled ones first, unless another order is chosen.

import { at, make } from "./dom.js";
import { bytes, percent } from "./format.js";

const charge = (vm) => vm.grant + vm.sharing.charged;
/** Name, what it is sorted by, and how it is shown. */
const COLUMNS = [
  ["VM", (vm) => vm.name, null],
  ["Power", (vm) => vm.power, (vm) => vm.power],
  ["Stalled", (vm) => vm.stall.full.avg60, (vm) => percent(vm.stall.full.avg60)],
  ["Size", (vm) => vm.size, (vm) => bytes(vm.size)],
  ["Entitled", (vm) => vm.entitlement, (vm) => bytes(vm.entitlement)],
  ["Has", charge, (vm) => bytes(charge(vm))],
  ["Active", (vm) => vm.active, (vm) => bytes(vm.active)],
  ["Target", (vm) => vm.target, (vm) => bytes(vm.target)],
  ["Balloon", (vm) => vm.ballooned, (vm) => bytes(vm.ballooned)],
  ["Shared", (vm) => vm.sharing.shared + vm.sharing.zero, (vm) => bytes(vm.sharing.shared + vm.sharing.zero)],
  ["Compressed", (vm) => vm.paging.compressed, (vm) => bytes(vm.paging.compressed)],
  ["Swapped", (vm) => vm.paging.swapped, (vm) => bytes(vm.paging.swapped)],
  ["Pool", (vm) => vm.pool, (vm) => vm.pool],
  ["Note", (vm) => vm.note ?? "", (vm) => vm.note ?? ""],
];
/** Columns of text, and the classes of their cells. */
const TEXTS = new Map([["VM", "text"], ["Power", "text"], ["Pool", "text"], ["Note", "text note"]]);

const classOf = (name) => (TEXTS.has(name) ? { class: TEXTS.get(name) } : {});

let vms = [];
/** The column, and whether it is upside down. */
let order = ["Stalled", true];
let chosen = null;
let onChoice = () => {};
const rows = new Map();

/** Sets up the table; `choice` is told of the VM that was chosen. */
export function begin(choice) {
  onChoice = choice;
  const heads = COLUMNS.map(([name]) => {
    const button = make("button", { type: "button" }, name);
    button.addEventListener("click", () => sort(name));
    return make("th", { scope: "col", ...classOf(name) }, button);
  });
  at("vms").replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody"));
  at("filter").addEventListener("input", draw);
  at("vms").addEventListener("keydown", move);
}

export function show(now) {
  vms = now;
  draw();
}

export function choose(name) {
  chosen = name;
  draw();
}

function sort(name) {
  order = [name, order[0] === name ? !order[1] : !TEXTS.has(name)];
  draw();
}

/** Arrows go from VM to VM. */
function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || event.target.closest("tbody") === null) {
    return;
  }
  const names = [...at("vms").tBodies[0].querySelectorAll("button")];
  names[names.indexOf(event.target) + step]?.focus();
  event.preventDefault();
}

function matches(vm, word) {
  return [vm.name, vm.pool, vm.note ?? ""].some((text) => text.toLowerCase().includes(word));
}

function draw() {
  const word = at("filter").value.trim().toLowerCase();
  const key = COLUMNS.find(([name]) => name === order[0])[1];
  const turn = order[1] ? -1 : 1;
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  const shown = vms.filter((vm) => matches(vm, word));
  shown.sort((a, b) => turn * compare(key(a), key(b)) || compare(a.name, b.name));
  [...at("vms").tHead.rows[0].cells].forEach((head, i) => {
    if (COLUMNS[i][0] === order[0]) {
      head.setAttribute("aria-sort", order[1] ? "descending" : "ascending");
    } else {
      head.removeAttribute("aria-sort");
    }
  });
  for (const name of rows.keys()) {
    if (!vms.some((vm) => vm.name === name)) {
      rows.delete(name);
    }
  }
  const focused = document.activeElement;
  at("vms").tBodies[0].replaceChildren(...shown.map(row));
  if (focused?.dataset?.vm !== undefined) {
    rows.get(focused.dataset.vm)?.querySelector("button").focus({ preventScroll: true });
  }
  at("shown").textContent = shown.length === vms.length ? `${vms.length}` : `${shown.length} of ${vms.length}`;
}

/** A VM's row, which stays the same element: what is focused stays so. */
function row(vm) {
  let line = rows.get(vm.name);
  if (line === undefined) {
    const button = make("button", { type: "button", "data-vm": vm.name }, vm.name);
    button.addEventListener("click", () => onChoice(vm.name));
    const cells = COLUMNS.slice(1).map(([name]) => make("td", classOf(name)));
    line = make("tr", { "data-vm": vm.name }, make("td", {}, button), ...cells);
    rows.set(vm.name, line);
  }
  COLUMNS.slice(1).forEach(([, , text], i) => {
    const cell = line.cells[i + 1];
    const now = text(vm);
    if (cell.textContent !== now) {
      cell.textContent = now;
    }
  });
  line.className = vm.stalled ? "stalled" : "";
  line.setAttribute("aria-selected", vm.name === chosen);
  return line;
}
