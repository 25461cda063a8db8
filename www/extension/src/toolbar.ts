import type { EngineState } from "./messages.js";

const EMBER = "#c2410c";
const RED = "#b91c1c";

type Look = "cold" | "warm";

/** Shows what the engine does: a grey coal while it sleeps, a glowing one while it holds a model, and a badge for progress and trouble. */
export async function showState(state: EngineState): Promise<void> {
  const { text, title, look } = describe(state);
  await Promise.all([
    chrome.action.setBadgeText({ text }),
    chrome.action.setBadgeBackgroundColor({ color: state.phase === "error" ? RED : EMBER }),
    chrome.action.setTitle({ title }),
    chrome.action.setIcon({ path: Object.fromEntries([16, 32].map((size) => [size, `icons/${look}-${size}.png`])) }),
  ]);
}

/** Shows that something could not be done, in one tab or in all. */
export async function showProblem(message: string, tabId?: number): Promise<void> {
  const where = tabId === undefined ? {} : { tabId };
  await Promise.all([
    chrome.action.setBadgeText({ ...where, text: "!" }),
    chrome.action.setBadgeBackgroundColor({ ...where, color: RED }),
    chrome.action.setTitle({ ...where, title: message }),
  ]);
}

function describe(state: EngineState): { text: string; title: string; look: Look } {
  switch (state.phase) {
    case "asleep":
      return { text: "", title: "cinderlm: asleep, no memory in use", look: "cold" };
    case "loading": {
      const share = shareDone(state);
      return { text: share === undefined ? "…" : `${share}%`, title: `cinderlm: loading ${state.model}`, look: "cold" };
    }
    case "ready":
      return { text: "", title: `cinderlm: ${state.model} is ready on ${state.device.kind === "cpu" ? "the CPU" : "the GPU"}`, look: "warm" };
    case "error":
      return { text: "!", title: `cinderlm: ${state.error.message}`, look: "cold" };
  }
}

/** Whole per cent of a model file that have been read, where its size is known. */
export function shareDone({ progress }: Extract<EngineState, { phase: "loading" }>): number | undefined {
  if (progress?.total === undefined || progress.total === 0) return undefined;
  return Math.floor((100 * progress.bytes) / progress.total);
}
