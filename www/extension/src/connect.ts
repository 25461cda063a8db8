import type { Answer, BackgroundMessage } from "./messages.js";

/** The extension was updated or removed while this page was open: its scripts here have lost their other half. */
export function isOrphaned(): boolean {
  return (chrome.runtime as typeof chrome.runtime | undefined)?.id === undefined;
}

/**
 * Opens a port to the engine's host, which the background starts if need be. The port goes to the host itself: it outlives the background.
 *
 * @throws Error when the host cannot be started.
 */
export async function openPort(name: string): Promise<chrome.runtime.Port> {
  if (isOrphaned()) throw new Error("cinderlm was updated or removed: reload this page.");
  const answer = await chrome.runtime.sendMessage<BackgroundMessage, Answer>({ type: "wake" });
  if (!answer.ok) throw new Error(answer.error.message);
  return chrome.runtime.connect({ name });
}
