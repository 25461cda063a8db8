/**
 * The bridge, in pages that the user allowed: takes calls from the page's window and carries them to the engine's host. The page's client
 * hands over one end of a channel for each call; keys and texts go through that, where no other listener of the window sees them.
 */
import { parseCall } from "./call.js";
import { openPort } from "./connect.js";
import { failure } from "./errors.js";
import { PORT, type CallReply } from "./messages.js";

/** What the client says to the window, with a port. */
const HELLO = "cinderlm.connect";

window.addEventListener("message", (event: MessageEvent<unknown>) => {
  // Frames and other windows post here too, and a page can make events up; only this window's own words count.
  if (!event.isTrusted || event.source !== window || event.origin !== location.origin || event.data !== HELLO) return;
  const [page] = event.ports;
  if (page !== undefined) serve(page);
});

/** Serves one call. */
function serve(page: MessagePort): void {
  const reply = (message: CallReply | { type: "hello" }): void => page.postMessage(message);
  let host: Promise<chrome.runtime.Port> | undefined;
  let isLeft = false;
  page.onmessage = ({ data }: MessageEvent<unknown>) => {
    if (data === "leave") {
      isLeft = true;
      page.close();
      host?.then((port) => port.disconnect(), () => undefined); // Without a port there is nothing to end.
      return;
    }
    const request = parseCall(data);
    if (!request.ok) return reply({ type: "error", error: request.error });
    host ??= openPort(PORT.call).then((port) => relay(port, reply, () => isLeft));
    host.then(
      (port) => {
        if (!isLeft) port.postMessage(request.value);
        else port.disconnect();
      },
      (error: unknown) => reply({ type: "error", error: failure("internal", String(error)) }),
    );
  };
  reply({ type: "hello" });
}

/** Hands on what the host says. */
function relay(port: chrome.runtime.Port, reply: (message: CallReply) => void, hasLeft: () => boolean): chrome.runtime.Port {
  let hasEnded = false;
  port.onMessage.addListener((message: CallReply) => {
    hasEnded ||= message.type === "completion" || message.type === "end" || message.type === "error";
    if (!hasLeft()) reply(message);
  });
  port.onDisconnect.addListener(() => {
    // Begun again, a sampled text would be another one: the page has to know that it was cut.
    if (!hasEnded && !hasLeft()) reply({ type: "error", error: failure("internal", "The engine was ended before the completion was.") });
  });
  return port;
}
