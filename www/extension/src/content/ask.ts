import { openPort } from "../connect.js";
import { failure, messageOf } from "../errors.js";
import type { ErrorBody } from "cinderlm";
import { PORT, type FieldReply, type FieldRequest } from "../messages.js";

/** What a field hears of its suggestion. */
export interface Listener {
  loading(model: string, share: number | undefined): void;
  text(text: string): void;
  end(): void;
  error(error: ErrorBody): void;
}

/** Ports that may break in a row without any text before the engine counts as broken. */
const MAX_ATTEMPTS = 3;

/**
 * Asks the engine for a suggestion. Should its host go away midway, the rest is asked for from where it broke off. Returns what cancels it.
 */
export function ask(prompt: string, stop: string[], listener: Listener): () => void {
  let isOver = false;
  let port: chrome.runtime.Port | undefined;
  let received = "";
  let nReceived = 0;
  let nAttempts = 0;

  const finish = (tell: () => void): void => {
    if (isOver) return;
    isOver = true;
    port?.disconnect();
    tell();
  };

  const hear = (reply: FieldReply): void => {
    if (isOver) return;
    if (reply.type === "text") {
      nAttempts = 0;
      nReceived += 1;
      received += reply.text;
      listener.text(reply.text);
    } else if (reply.type === "loading") {
      const { model, progress } = reply.state;
      const { bytes, total } = progress ?? {};
      listener.loading(model, bytes === undefined || !total ? undefined : bytes / total);
    } else if (reply.type === "end") {
      finish(() => listener.end());
    } else {
      finish(() => listener.error(reply.error));
    }
  };

  const connect = async (): Promise<void> => {
    nAttempts += 1;
    const opened = await openPort(PORT.field);
    if (isOver) return opened.disconnect();
    port = opened;
    opened.onMessage.addListener(hear);
    opened.onDisconnect.addListener(begin);
    const request: FieldRequest = { type: "ask", prompt: prompt + received, stop, nReceived };
    opened.postMessage(request);
  };

  const begin = (): void => {
    if (isOver) return;
    const failed = (message: string): void => finish(() => listener.error(failure("internal", message)));
    if (nAttempts === MAX_ATTEMPTS) return failed("The engine cannot be reached. Reload the extension, or this page.");
    connect().catch((error: unknown) => failed(messageOf(error)));
  };

  begin();
  return () => finish(() => undefined);
}
