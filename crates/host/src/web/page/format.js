// Numbers and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A size in the largest unit that leaves it above one, with three digits or so. */
export function bytes(size) {
  let unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) {
    size /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || size >= 100 || Number.isInteger(size) ? 0 : 1;
  return `${size.toFixed(digits)} ${UNITS[unit]}`;
}

/** A percentage, with a decimal where it is small. */
export function percent(value) {
  return value >= 0.05 ? `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %` : "0 %";
}

/** A moment of today as a time, another one with its date. */
export function moment(date) {
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}
