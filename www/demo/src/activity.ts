import type { LoadProgress } from "cinderlm";
import { button, byId, make } from "./dom.js";
import { formatBytes, formatMillis } from "./format.js";
import type { Problem } from "./problems.js";
import type { AppState } from "./session.js";
import type { Store } from "./store.js";

/** What is under way, what went wrong, and what to do about it. */
export function initActivity(store: Store<AppState>, actions: { stop(): void; retry(): void }): void {
  initProgress(store, actions.stop);
  const problemBox = byId("problem", HTMLElement);
  const status = byId("status", HTMLElement);
  store.watch((state, before) => {
    const { problem } = state;
    if (problem !== before.problem) problemBox.replaceChildren(...(problem === undefined ? [] : [problemCard(problem, actions.retry)]));
    // Screen readers read what changes here, so it changes with the state and not with each token.
    const text = statusOf(state);
    if (status.textContent !== text) status.textContent = text;
  });
}

function initProgress(store: Store<AppState>, stop: () => void): void {
  const bar = make("progress", { attributes: { "aria-labelledby": "progress-title" } });
  const title = make("p", { class: "progress-title", attributes: { id: "progress-title" } });
  const figures = make("p", { class: "small", attributes: { id: "progress-figures" } });
  const note = make("p", { class: "small", text: "What has arrived is kept: after a stop the download goes on from there." });
  const cancel = button("Cancel", stop);
  const box = byId("activity", HTMLElement);
  box.append(title, bar, figures, note, cancel);
  store.watch(({ phase, progress, model }) => {
    box.hidden = phase !== "loading";
    if (phase !== "loading") return;
    title.textContent = titleOf(progress, model?.name ?? "the model");
    figures.textContent = progress === undefined ? "" : figuresOf(progress);
    note.hidden = progress?.phase !== "download";
    if (progress?.total === undefined) bar.removeAttribute("value");
    else [bar.max, bar.value] = [progress.total, progress.bytes];
  });
}

function titleOf(progress: LoadProgress | undefined, name: string): string {
  switch (progress?.phase) {
    case "download":
      return `Downloading ${name}`;
    case "cache":
      return `Reading ${name} from this device`;
    case "file":
      return `Reading ${name}`;
    default:
      return `Preparing ${name}`;
  }
}

function figuresOf({ bytes, total, rate, secondsLeft }: LoadProgress): string {
  const parts = [total === undefined ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(total)}`];
  if (rate !== undefined) parts.push(`${formatBytes(rate)}/s`);
  if (secondsLeft !== undefined) parts.push(`${formatMillis(1000 * Math.ceil(secondsLeft))} left`);
  return parts.join(" · ");
}

function problemCard({ message, code, advice, isRetriable }: Problem, retry: () => void): HTMLElement {
  const card = make("div", { class: "problem" }, make("p", { class: "problem-message", text: message }), make("p", { text: advice }));
  if (code !== undefined) card.append(make("p", { class: "small" }, "Code: ", make("code", { text: code })));
  if (isRetriable) card.append(button("Try again", retry));
  return card;
}

function statusOf({ phase, progress, outcome, problem }: AppState): string {
  if (phase === "loading") return progress?.phase === "download" ? "Downloading the model" : "Loading the model";
  if (phase === "running") return "Completing";
  if (problem !== undefined) return "Failed";
  if (outcome === "done") return "Done";
  return outcome === "stopped" ? "Stopped" : "";
}
