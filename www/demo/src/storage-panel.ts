import type { CachedFile } from "cinderlm";
import { button, byId, make } from "./dom.js";
import { formatBytes } from "./format.js";
import type { AppState } from "./session.js";
import type { Store } from "./store.js";

/** What the panel asks for. */
export interface StorageActions {
  delete(file: CachedFile): void;
  persist(): void;
}

/** The models that are stored on this device. */
export function initStoragePanel(store: Store<AppState>, actions: StorageActions): void {
  const total = make("p");
  const list = make("ul", { class: "files" });
  const persistence = make("p", { class: "small" });
  const keep = button("Ask the browser to keep it", actions.persist);
  byId("storage", HTMLElement).append(total, list, persistence, keep);
  let drawn: readonly CachedFile[] | undefined;
  store.watch(({ files, usage }) => {
    total.textContent = totalOf(files, usage);
    if (files !== drawn) list.replaceChildren(...files.map((file) => row(file, actions)));
    drawn = files;
    keep.hidden = usage === undefined || usage.isPersisted;
    if (usage === undefined) return;
    persistence.textContent = usage.isPersisted ? "The browser keeps it until you delete it." : "The browser may delete it when the disk is full.";
  });
}

function totalOf(files: AppState["files"], usage: AppState["usage"]): string {
  if (usage === undefined) return "Looking…";
  const room = usage.quota === undefined ? "" : ` The browser allows this page ${formatBytes(usage.quota)}.`;
  return files.length === 0 ? `No model is stored yet.${room}` : `${formatBytes(usage.bytes)} of models are stored.${room}`;
}

function row(file: CachedFile, actions: StorageActions): HTMLElement {
  const name = decodeName(file.url);
  const part = file.total === undefined ? formatBytes(file.bytes) : `${formatBytes(file.bytes)} of ${formatBytes(file.total)}`;
  const size = file.isComplete ? formatBytes(file.bytes) : `${part}, goes on when it is next loaded`;
  const remove = button("Delete", () => actions.delete(file), "quiet");
  remove.setAttribute("aria-label", `Delete ${name}`);
  const title = make("span", { class: "file-name", text: name, attributes: { title: file.url } });
  return make("li", {}, title, make("span", { class: "small", text: size }), remove);
}

/** The last part of an address, readable; the address is whatever some page stored. */
function decodeName(url: string): string {
  const last = url.split(/[?#]/)[0]?.split("/").at(-1) || url;
  try {
    return decodeURIComponent(last);
  } catch {
    return last;
  }
}
