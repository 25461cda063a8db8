import { CATALOGUE } from "../catalogue.js";
import { keepPicked } from "../host/files.js";
import { changeSettings, type ModelChoice, type Settings } from "../settings.js";
import { parseUrl } from "../url.js";
import { attempt } from "./attempt.js";
import { byId, make, megabytes } from "./dom.js";

/** Makes the controls of this section work. `onKept` hears when a file was copied. */
export function wireModels(onKept: () => void): void {
  byId("address-form", HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    attempt(useAddress);
  };
  const picker = byId("file", HTMLInputElement);
  picker.onchange = () => {
    const file = picker.files?.[0];
    picker.value = ""; // The same file can be picked again.
    if (file !== undefined) attempt(() => useFile(file).then(onKept));
  };
}

/** Shows the models to choose from, the one that is chosen among them. */
export function drawModels({ model }: Settings): void {
  const offered = CATALOGUE.map(({ id, url, megabytes: size, note }) => choice({ id, url }, megabytes(size * 1e6), note, model));
  const isOffered = model === null || CATALOGUE.some(({ id }) => id === model.id);
  const own = isOffered ? [] : [choice(model, "", "url" in model ? model.url : "picked from this computer", model)];
  byId("models", HTMLFieldSetElement).replaceChildren(...offered, ...own);
}

function choice(model: ModelChoice, size: string, note: string, chosen: ModelChoice | null): HTMLLabelElement {
  const onchange = (): void => attempt(() => changeSettings({ model }));
  return make(
    "label",
    { className: "choice" },
    make("input", { type: "radio", name: "model", checked: chosen?.id === model.id, onchange }),
    make("span", { className: "name" }, model.id),
    make("span", { className: "size" }, size),
    make("span", { className: "note" }, note),
  );
}

async function useAddress(): Promise<void> {
  const input = byId("address", HTMLInputElement);
  const url = input.value.trim();
  if (!/^hf:[^/]+\/[^/]+\/.+/i.test(url) && !/^https?:$/.test(parseUrl(url)?.protocol ?? "")) {
    throw new TypeError(`${JSON.stringify(url)} is no address of a model: expected hf:owner/repo/file.gguf@revision or https://…`);
  }
  await changeSettings({ model: { id: nameOf(url), url } });
  input.value = "";
}

/** The file's own name, without what addresses put around it. */
function nameOf(url: string): string {
  const path = url.replace(/@[^/]*$/, "").replace(/[?#].*$/, "");
  return path.slice(path.lastIndexOf("/") + 1) || url;
}

async function useFile(file: File): Promise<void> {
  const bar = byId("copy-progress", HTMLProgressElement);
  bar.hidden = false;
  try {
    await keepPicked(file, (bytes) => (bar.value = (100 * bytes) / file.size));
  } finally {
    bar.hidden = true;
  }
  await changeSettings({ model: { id: file.name, file: file.name } });
}
