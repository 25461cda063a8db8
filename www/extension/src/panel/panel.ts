/** The panel: shows what the engine does, and lets the user choose. What is chosen holds from the next request on. */
import type { EngineState, StorageReport } from "../messages.js";
import { readSettings } from "../settings.js";
import { showClients, wireAccess } from "./access.js";
import { attempt } from "./attempt.js";
import { byId, make, megabytes } from "./dom.js";
import { drawEngine } from "./engine-view.js";
import { HostPort } from "./host.js";
import { drawModels, wireModels } from "./models.js";
import { wireSettings } from "./settings-view.js";

let engine: EngineState = { phase: "asleep" };
let chosen: string | undefined;

const host = new HostPort((state) => {
  engine = state;
  drawEngine(engine, chosen);
  // A file is kept from when it was read.
  if (state.phase === "ready") attempt(drawStorage);
});

async function drawChoice(): Promise<void> {
  const settings = await readSettings();
  chosen = settings.model?.id;
  drawModels(settings);
  drawEngine(engine, chosen);
}

async function drawStorage(): Promise<void> {
  const report = await host.ask({ type: "storage" });
  if (report !== undefined) drawFiles(report);
}

function drawFiles({ files, bytes, quota }: StorageReport): void {
  const room = quota === undefined ? "" : ` of the ${megabytes(quota)} that the browser allows`;
  byId("storage-sum", HTMLElement).textContent = files.length === 0 ? "Nothing yet." : `${megabytes(bytes)}${room}`;
  const rows = files.map(({ id, name, bytes: size, total, isComplete }) => {
    const remove = (): void => {
      const deleted = async (): Promise<void> => {
        const report = await host.ask({ type: "delete", file: id });
        if (report !== undefined) drawFiles(report);
        await drawChoice();
      };
      attempt(deleted);
    };
    const detail = isComplete ? megabytes(size) : `${megabytes(size)}${total === undefined ? "" : ` of ${megabytes(total)}`}, goes on when it is used`;
    const text = make("span", { className: "who" }, name, make("span", { className: "quiet" }, detail));
    return make("li", {}, text, make("button", { type: "button", className: "plain", onclick: remove, "aria-label": `Delete ${name}` }, "Delete"));
  });
  byId("files", HTMLElement).replaceChildren(...rows);
}

async function drawShortcut(): Promise<void> {
  const command = (await chrome.commands.getAll()).find(({ name }) => name === "complete");
  byId("shortcut", HTMLElement).textContent = command?.shortcut || "no key is set";
  if (/mac/i.test(navigator.platform)) byId("word-keys", HTMLElement).textContent = "⌥→";
}

byId("load", HTMLButtonElement).onclick = () => attempt(() => host.ask({ type: "load" }));
byId("sleep", HTMLButtonElement).onclick = () => attempt(() => host.ask({ type: "sleep" }));
wireModels(() => attempt(drawStorage));
wireSettings();
wireAccess();
chrome.storage.local.onChanged.addListener(() => attempt(drawChoice));
attempt(drawChoice);
attempt(drawShortcut);
attempt(drawStorage);
attempt(showClients);
