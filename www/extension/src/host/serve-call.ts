import type { CompletionParams } from "cinderlm";
import { parseCall } from "../call.js";
import { matchKey, type Caller } from "../clients.js";
import { INVALID_KEY, MISSING_KEY } from "../errors.js";
import type { CallReply, CallRequest } from "../messages.js";
import { Credit } from "./credit.js";
import { bodyOf } from "./engine.js";
import type { Host, Running } from "./host.js";
import { replier } from "./reply.js";

type CompleteRequest = Extract<CallRequest, { type: "complete" }>;

/** Answers one call of a page or of another extension, if its key is good. */
export function serveCall(host: Host, port: chrome.runtime.Port, caller: Caller): void {
  const reply = replier<CallReply>(port);
  const credit = new Credit();
  let isTaken = false;
  port.onMessage.addListener((message: unknown) => {
    const request = parseCall(message);
    if (!request.ok) return reply({ type: "error", error: request.error });
    if (request.value.type === "taken") return credit.add(request.value.count);
    if (isTaken) return; // One port is one call.
    isTaken = true;
    const { value } = request;
    const running: Running = { caller, abort: new AbortController(), ...(value.key === undefined ? {} : { key: value.key }) };
    host.run(port, running, () => answer(host, value, caller, running.abort.signal, credit, reply)).catch((error: unknown) => {
      // It was aborted because the caller has left, and hears nothing of this, or because its key was revoked.
      reply({ type: "error", error: running.abort.signal.aborted ? INVALID_KEY : bodyOf(error) });
    });
  });
}

async function answer(
  host: Host,
  request: CompleteRequest,
  caller: Caller,
  signal: AbortSignal,
  credit: Credit,
  reply: (message: CallReply) => void,
): Promise<void> {
  const { settings, clients } = await host.link.config();
  if (request.key === undefined) return reply({ type: "error", error: MISSING_KEY });
  if ((await matchKey(clients, caller, request.key)) === undefined) return reply({ type: "error", error: INVALID_KEY });
  const { cinder, model } = await host.engine.prepare(settings);
  const who = caller.kind === "page" ? caller.who : `extension:${caller.who}`;
  const seed = request.seed === undefined ? {} : { seed: BigInt(request.seed) };
  // The engine checks every field, so what has not been checked yet may pass for a request here.
  const params = { model, ...request.params, ...seed, user: who } as CompletionParams;
  const answered = await cinder.complete(params, { signal, cacheScope: who });
  if (!(Symbol.asyncIterator in answered)) return reply({ type: "completion", completion: answered });
  reply({ type: "stream" });
  for await (const chunk of answered) {
    reply({ type: "chunk", chunk });
    await credit.take(signal);
  }
  reply({ type: "end" });
}
