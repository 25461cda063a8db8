import { CATALOGUE, type CatalogueEntry } from "./catalogue.js";
import { button, byId, make } from "./dom.js";
import { formatBytes } from "./format.js";
import { addressFault, fileAddress, modelAt, modelIn, type ChosenModel } from "./models.js";
import type { AppState } from "./session.js";
import type { Store } from "./store.js";

/** What the panel asks for. */
export interface ModelActions {
  choose(model: ChosenModel): void;
  load(): void;
}

/** The model in use, and the choice of another: from the catalogue, by address, or a file. */
export function initModelPanel(store: Store<AppState>, actions: ModelActions): void {
  const toggle = byId("model-change", HTMLButtonElement);
  const load = byId("model-load", HTMLButtonElement);
  const choices = byId("model-choices", HTMLElement);
  const setOpen = (isOpen: boolean): void => {
    choices.hidden = !isOpen;
    toggle.setAttribute("aria-expanded", String(isOpen));
    toggle.textContent = isOpen ? "Close" : "Change";
  };
  const choose = (model: ChosenModel): void => {
    const hadFocus = choices.contains(document.activeElement);
    actions.choose(model);
    setOpen(false);
    if (hadFocus) toggle.focus();
  };
  toggle.addEventListener("click", () => setOpen(choices.hidden));
  load.addEventListener("click", actions.load);
  const rows = CATALOGUE.map((entry) => catalogueRow(entry, choose));
  const all = make("fieldset", { class: "choices-of-models" }, make("legend", { text: "Choose a model" }));
  all.append(make("ul", { class: "catalogue" }, ...rows.map(({ row }) => row)), byAddress(choose), byFile(choose));
  choices.append(all);
  takeDrops(store, choose);

  store.watch((state) => {
    const { model, loaded, phase, files } = state;
    const isBusy = phase !== "idle";
    byId("model-name", HTMLElement).textContent = model?.name ?? "None yet";
    byId("model-meta", HTMLElement).textContent = metaOf(state);
    load.hidden = model === undefined || loaded !== undefined;
    load.disabled = isBusy;
    all.disabled = isBusy;
    for (const { entry, badge } of rows) badge.textContent = storedOf(fileAddress(entry.address), files) ?? "";
  });
}

interface CatalogueRow {
  entry: CatalogueEntry;
  /** Says what of it is on this device. */
  badge: HTMLElement;
  row: HTMLElement;
}

function catalogueRow(entry: CatalogueEntry, choose: (model: ChosenModel) => void): CatalogueRow {
  const badge = make("span", { class: "badge" });
  const onClick = (): void => choose(modelAt(entry.address, document.baseURI));
  const pick = make("button", { class: "entry", attributes: { type: "button" }, onClick });
  pick.append(
    make("span", { class: "entry-name", text: entry.name }),
    make("span", { class: "small", text: `${formatBytes(entry.bytes)} · ${entry.licence}` }),
    make("span", { class: "entry-good", text: entry.goodAt }),
    badge,
  );
  return { entry, badge, row: make("li", {}, pick) };
}

function byAddress(choose: (model: ChosenModel) => void): HTMLElement {
  const input = make("input", {
    attributes: {
      id: "model-address",
      type: "text",
      inputmode: "url",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "hf:owner/repo/file.gguf",
      "aria-describedby": "model-address-fault",
    },
  });
  const fault = make("p", { class: "fault", attributes: { id: "model-address-fault", role: "alert" } });
  const use = (): void => {
    const address = input.value.trim();
    const wrong = addressFault(address, document.baseURI);
    fault.textContent = wrong ?? "";
    input.setAttribute("aria-invalid", String(wrong !== undefined));
    if (wrong === undefined) choose(modelAt(address, document.baseURI));
    else input.focus();
  };
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    use();
  });
  const label = make("label", { text: "Address of a GGUF file", attributes: { for: "model-address" } });
  return make("div", { class: "field" }, label, make("div", { class: "joined" }, input, button("Use", use)), fault);
}

function byFile(choose: (model: ChosenModel) => void): HTMLElement {
  const input = make("input", { attributes: { id: "model-file", type: "file", accept: ".gguf" } });
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file !== undefined) choose(modelIn(file));
  });
  const label = make("label", { text: "A GGUF file of yours, which can also be dropped anywhere on the page", attributes: { for: "model-file" } });
  return make("div", { class: "field" }, label, input);
}

/** A file that is dropped on the page is a model. Without this the browser would leave the page and open it. */
function takeDrops(store: Store<AppState>, choose: (model: ChosenModel) => void): void {
  const carriesFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  window.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  window.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) document.body.classList.remove("dropping");
  });
  window.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    const file = event.dataTransfer?.files[0];
    if (file !== undefined && store.state.phase === "idle") choose(modelIn(file));
  });
}

function metaOf({ model, loaded, files }: AppState): string {
  if (model === undefined) return "Choose one to begin.";
  if (loaded !== undefined) {
    const context = loaded.contextLength === undefined ? "" : ` · ${loaded.contextLength.toLocaleString("en")} tokens of context`;
    return `In memory · ${loaded.architecture ?? "unknown architecture"}${context}`;
  }
  if ("file" in model.source) return `${formatBytes(model.source.file.size)} · your file, not loaded yet`;
  const { address } = model.source;
  const entry = CATALOGUE.find((candidate) => candidate.address === address);
  const missing = entry === undefined ? "not on this device yet" : `${formatBytes(entry.bytes)} to download`;
  const stored = storedOf(fileAddress(address), files) ?? missing;
  return entry === undefined ? `${stored} · ${address}` : `${entry.licence} · ${stored}`;
}

/** What of a file is on this device already. */
function storedOf(address: string, files: AppState["files"]): string | undefined {
  const file = files.find(({ url }) => url === address);
  if (file === undefined) return undefined;
  if (file.isComplete) return "on this device";
  return `${formatBytes(file.bytes)}${file.total === undefined ? "" : ` of ${formatBytes(file.total)}`} on this device`;
}
