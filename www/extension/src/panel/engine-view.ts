import type { EngineState } from "../messages.js";
import { byId, duration, megabytes } from "./dom.js";

/** Shows what the engine does. `chosen` is the model of the settings: it can be loaded in the place of the one that is. */
export function drawEngine(state: EngineState, chosen: string | undefined): void {
  const { title, model, detail } = describe(state);
  byId("state", HTMLElement).textContent = title;
  byId("coal", HTMLElement).classList.toggle("warm", state.phase === "ready");
  byId("engine-model", HTMLElement).textContent = model;
  byId("engine-detail", HTMLElement).textContent = detail;
  byId("load", HTMLButtonElement).hidden = state.phase === "loading" || (state.phase === "ready" && state.model === chosen);
  byId("sleep", HTMLButtonElement).hidden = state.phase === "asleep" || state.phase === "error";
  drawProgress(state);
}

function describe(state: EngineState): { title: string; model: string; detail: string } {
  switch (state.phase) {
    case "asleep":
      return { title: "Asleep", model: "The engine sleeps and holds no memory", detail: "It wakes when a suggestion is asked for." };
    case "loading":
      return { title: "Loading", model: state.model, detail: "" };
    case "ready":
      return { title: "Ready", model: state.model, detail: `Runs on the ${state.device.kind === "cpu" ? "CPU" : "GPU"}: ${state.device.reason}` };
    case "error":
      return { title: "Trouble", model: "The model is not loaded", detail: state.error.message };
  }
}

function drawProgress(state: EngineState): void {
  const bar = byId("progress", HTMLProgressElement);
  const text = byId("progress-text", HTMLElement);
  const isLoading = state.phase === "loading";
  bar.hidden = !isLoading;
  text.hidden = !isLoading || state.progress === undefined;
  if (!isLoading) return;
  const { bytes = 0, total, rate, secondsLeft, phase } = state.progress ?? {};
  // Without a value the bar shows that something goes on.
  if (total === undefined) bar.removeAttribute("value");
  else bar.value = (100 * bytes) / total;
  const parts = [
    phase === "download" ? "Downloading" : "Reading",
    total === undefined ? megabytes(bytes) : `${megabytes(bytes)} of ${megabytes(total)}`,
    phase === "download" && rate !== undefined ? `${megabytes(rate)}/s` : "",
    phase === "download" && secondsLeft !== undefined ? `${duration(secondsLeft)} left` : "",
  ];
  text.textContent = parts.filter(Boolean).join(" · ");
}
