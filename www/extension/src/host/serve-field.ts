import { parseField } from "../call.js";
import type { FieldReply, FieldRequest } from "../messages.js";
import { bodyOf } from "./engine.js";
import type { Host } from "./host.js";
import { replier } from "./reply.js";

/** Answers a text field of a page: one suggestion, for the settings that the user made. */
export function serveField(host: Host, port: chrome.runtime.Port, origin: string): void {
  const reply = replier<FieldReply>(port);
  port.onMessage.addListener((message: unknown) => {
    const request = parseField(message);
    if (!request.ok) {
      reply({ type: "error", error: request.error });
      return;
    }
    const abort = new AbortController();
    host
      .run(port, { abort }, () => suggest(host, request.value, origin, abort.signal, reply))
      .catch((error: unknown) => reply({ type: "error", error: bodyOf(error) }));
  });
}

async function suggest(host: Host, request: FieldRequest, origin: string, signal: AbortSignal, reply: (message: FieldReply) => void): Promise<void> {
  const { settings } = await host.link.config();
  const hear: Parameters<Host["whileHearing"]>[0] = (state) => {
    if (state.phase === "loading") reply({ type: "loading", state });
  };
  const { cinder, model } = await host.whileHearing(hear, host.engine.prepare(settings));
  const max_tokens = Math.max(1, settings.maxTokens - request.nReceived);
  const stream = await cinder.complete(
    { model, prompt: request.prompt, max_tokens, temperature: settings.temperature, stop: request.stop, stream: true, user: origin },
    // How fast a prompt is read tells what was read before: no page may learn what was typed into another.
    { signal, cacheScope: origin },
  );
  for await (const chunk of stream) {
    const text = chunk.choices[0]?.text;
    if (text) reply({ type: "text", text });
  }
  reply({ type: "end" });
}
