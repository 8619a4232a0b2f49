// The daemon's API, read only. Nothing else is ever asked.

const KEPT = "plimsoll-token";

/** The daemon wants a token, or another one. */
export class Refused extends Error {}

/** Whether this tab has a token. */
export function kept() {
  return sessionStorage.getItem(KEPT) !== null;
}

export function keep(token) {
  sessionStorage.setItem(KEPT, token);
}

export function forget() {
  sessionStorage.removeItem(KEPT);
}

async function get(path, options = {}) {
  const token = sessionStorage.getItem(KEPT);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", ...options });
  if (answer.status === 401) {
    throw new Refused();
  }
  return answer;
}

/** An answer as JSON. */
export async function json(path) {
  const answer = await get(path);
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  return answer.json();
}

/** An answer as text. */
export async function text(path) {
  const answer = await get(path);
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  return answer.text();
}

/**
 * Hears the server-sent events of `path`, until the connection ends. EventSource cannot send a
 * token, so this reads the stream by itself.
 */
export async function hear(path, each) {
  const answer = await get(path);
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status}`);
  }
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      return;
    }
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length > 0) {
        each(JSON.parse(data.join("\n")));
      }
    }
  }
}
