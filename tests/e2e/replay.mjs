// A server that answers as a real one was recorded to: tests/compat/recorded.json. `CINDERLM_REMOTE` names a real one to use instead.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { isDeepStrictEqual } from "node:util";

const read = (name) => JSON.parse(readFileSync(new URL(`../compat/${name}`, import.meta.url), "utf8"));
const { requests } = read("requests.json");
const answers = read("recorded.json");
const EVENT_MILLIS = 5;
const CORS = { "access-control-allow-origin": "*", "access-control-allow-headers": "*" };

/** The recorded request of this name, as a request of the contract. */
export function recordedRequest(name) {
  return requests.find((request) => request.name === name).body;
}

/**
 * The recorded server, or the real one. `seen` are the requests that the recorded one got: their headers, and whether the client left before
 * the answer was whole.
 */
export async function remoteServer() {
  const real = process.env.CINDERLM_REMOTE;
  if (real !== undefined) return { url: real, isReal: true, seen: [], close: () => undefined };
  const seen = [];
  const server = createServer((request, response) => {
    if (request.method === "OPTIONS") return response.writeHead(204, CORS).end();
    answer(request, response, seen).catch((error) => response.destroy(error));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    isReal: false,
    seen,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

async function answer(request, response, seen) {
  let text = "";
  for await (const part of request.setEncoding("utf8")) text += part;
  const entry = { headers: request.headers, isLeft: false };
  seen.push(entry);
  const known = requests.find(({ path, body }) => path === request.url && isDeepStrictEqual(body, JSON.parse(text)));
  if (known === undefined) return response.writeHead(404, { ...CORS, "content-type": "text/plain" }).end("this request was not recorded");
  const { status, type, body } = answers[known.name];
  response.on("close", () => (entry.isLeft = !response.writableFinished));
  response.writeHead(status, { ...CORS, "content-type": type });
  if (type !== "text/event-stream") return response.end(typeof body === "string" ? body : JSON.stringify(body));
  for (const event of body) {
    await new Promise((resolve) => setTimeout(resolve, EVENT_MILLIS));
    if (response.destroyed) return;
    response.write(`data: ${typeof event === "string" ? event : JSON.stringify(event)}\n\n`);
  }
  response.end();
}
