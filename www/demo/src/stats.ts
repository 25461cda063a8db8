import { byId, make } from "./dom.js";
import { formatBytes, formatMillis } from "./format.js";
import type { AppState } from "./session.js";
import type { Store } from "./store.js";

/** How fast the last request ran, and what it took. */
export function initStats(store: Store<AppState>): void {
  const list = byId("stats", HTMLElement);
  store.watch(({ report, memory }, before) => {
    if (report === before.report && memory === before.memory) return;
    const rows = [...reportRows(report), ...memoryRows(memory)];
    list.replaceChildren(...rows.map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value }))));
    // A request that failed before its first token has nothing to tell.
    list.hidden = report === undefined || (report.outcome === "failed" && report.usage?.completion_tokens === 0);
  });
}

function reportRows(report: AppState["report"]): [string, string][] {
  if (report === undefined) return [];
  const { usage, timings, duration_millis } = report;
  const rows: [string, string][] = [];
  const speed = timings !== null && "tokens_per_second" in timings ? timings.tokens_per_second : null;
  if (speed !== null) rows.push(["Tokens per second", speed.toFixed(1)]);
  if (timings !== null && timings.first_token_millis !== null) rows.push(["To the first token", formatMillis(timings.first_token_millis)]);
  if (usage !== null) rows.push(["Prompt tokens", String(usage.prompt_tokens)], ["Completion tokens", String(usage.completion_tokens)]);
  rows.push(["In all", formatMillis(duration_millis)]);
  return rows;
}

function memoryRows(memory: AppState["memory"]): [string, string][] {
  if (memory === undefined) return [];
  const rows: [string, string][] = [["Memory", formatBytes(memory.wasmBytes)]];
  if (memory.gpuBytes > 0) rows.push(["GPU memory", formatBytes(memory.gpuBytes)]);
  return rows;
}
