// What an answer looks like, whatever it says: its status, its type, and the fields of its body with their types.

/** Fields whose keys are data: what they map is compared, not the keys. */
const MAPS = new Set(["top_logprobs[]"]);

/**
 * The shape of an answer, as a map from places such as `body.choices[].text` to types; `null` and another type at one place are `null|other`.
 *
 * An answer is `{ status, type, body }` with the body parsed: JSON, the list of a stream's events, or text.
 */
export function shapeOf({ status, type, body }) {
  const shape = new Map([
    ["status", String(status)],
    ["content-type", type],
  ]);
  const types = new Map();
  visit(body, "body", types);
  for (const [place, found] of types) shape.set(place, [...found].sort().join("|"));
  return shape;
}

function visit(value, place, types) {
  const kind = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  types.set(place, (types.get(place) ?? new Set()).add(kind));
  if (kind === "array") for (const item of value) visit(item, `${place}[]`, types);
  if (kind !== "object") return;
  const isMap = [...MAPS].some((name) => place.endsWith(name));
  for (const [key, item] of Object.entries(value)) visit(item, isMap ? `${place}{}` : `${place}.${key}`, types);
}

/**
 * Where two answers differ: `{ place, theirs, ours }`, with `absent` for what is not there. A field that is absent hides those inside it, and
 * answers of different success are not compared beyond their status.
 */
export function differences(theirs, ours) {
  const [a, b] = [shapeOf(theirs), shapeOf(ours)];
  const isError = ({ status }) => status >= 400;
  const places = isError(theirs) === isError(ours) ? [...new Set([...a.keys(), ...b.keys()])].sort() : ["status"];
  const found = [];
  for (const place of places) {
    const [left, right] = [a.get(place) ?? "absent", b.get(place) ?? "absent"];
    const isInside = found.some((outer) => (outer.theirs === "absent" || outer.ours === "absent") && /^[.[{]/.test(place.slice(outer.place.length)) && place.startsWith(outer.place));
    if (left !== right && !isInside) found.push({ place, theirs: left, ours: right });
  }
  return found;
}

/** An answer of `fetch`, read; errors say only the first line of their message. */
export async function readAnswer(response) {
  const text = await response.text();
  const type = (response.headers.get("content-type") ?? "none").split(";")[0];
  return { status: response.status, type, body: readBody(text, type) };
}

function readBody(text, type) {
  if (type === "text/event-stream") {
    const events = text.split(/\r?\n\r?\n/).filter((event) => event.startsWith("data: "));
    return events.map((event) => event.slice("data: ".length)).map((data) => (data === "[DONE]" ? data : plain(JSON.parse(data))));
  }
  return type === "application/json" ? plain(JSON.parse(text)) : text.split("\n")[0];
}

/** Without what differs from run to run, and without the paths that errors tell. */
function plain(value) {
  return JSON.parse(
    JSON.stringify(value, (key, item) => {
      if (key === "id" && String(item).startsWith("cmpl-")) return "cmpl-";
      if (key === "created") return 0;
      if (key === "message") return String(item).split("\n")[0];
      return typeof item === "number" && key !== "index" ? Math.round(item * 1e4) / 1e4 : item;
    }),
  );
}

/** How a request of `requests.json` is sent. */
export function requestInit({ body, text }) {
  if (body === undefined && text === undefined) return { method: "GET" };
  return { method: "POST", headers: { "content-type": "application/json" }, body: text ?? JSON.stringify(body) };
}
