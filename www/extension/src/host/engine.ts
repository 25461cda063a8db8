import { Cinder, CompletionError, type ErrorBody, type LoadProgress } from "cinderlm";
import { failure, messageOf } from "../errors.js";
import type { EngineState, StorageReport, StoredFile } from "../messages.js";
import type { ModelChoice, Settings } from "../settings.js";
import { deletePicked, listPicked, openPicked } from "./files.js";

/** Calls at a time of one page's origin or one extension: enough for several fields and tabs, too few to crowd others out. */
const CONCURRENT_PER_CALLER = 4;
/** A file is read in many pieces: telling all who listen of each would take longer than reading it. */
const PROGRESS_MILLIS = 200;
/** Marks the files that were picked, among the ids of those that were downloaded. */
const PICKED = "picked:";

/** A model that is loaded, and what runs it. */
export interface Ready {
  cinder: Cinder;
  model: string;
}

/** The one engine of the extension: makes it when it is first needed, keeps it to the settings, and ends it. */
export class Engine {
  readonly #onState: (state: EngineState) => void;
  #cinder: { device: Settings["device"]; instance: Cinder } | undefined;
  #model: { choice: string; id: string } | undefined;
  #loading: Promise<void> | undefined;
  /** Settles when the choices so far have been registered, or could not be. */
  #registering: Promise<void> = Promise.resolve();
  #state: EngineState = { phase: "asleep" };
  #toldAt = -Infinity;

  constructor(onState: (state: EngineState) => void) {
    this.#onState = onState;
  }

  get state(): EngineState {
    return this.#state;
  }

  /**
   * The engine with the model of the settings loaded. All who ask meanwhile wait for one load, which goes on when one of them leaves.
   *
   * @throws CompletionError when no model is chosen or it cannot be loaded.
   */
  async prepare(settings: Settings): Promise<Ready> {
    if (settings.model === null) {
      const error = failure("model_not_found", "No model is chosen yet: open cinderlm’s panel and choose one.", "model");
      this.#tell({ phase: "error", error });
      throw new CompletionError(error);
    }
    const cinder = await this.#instance(settings.device);
    await this.#register(cinder, settings.model);
    const model = settings.model.id;
    const isLoaded = cinder.models().some(({ id, loaded }) => id === model && loaded);
    if (!isLoaded || this.#state.phase !== "ready") {
      const loading = (this.#loading ??= this.#load(cinder, model));
      try {
        await loading;
      } finally {
        if (this.#loading === loading) this.#loading = undefined;
      }
    }
    return { cinder, model };
  }

  /** What is kept of models, downloaded and picked. */
  async storage(settings: Settings): Promise<StorageReport> {
    const cinder = await this.#instance(settings.device);
    const [downloaded, picked, { quota }] = await Promise.all([cinder.cache.list(), listPicked(), cinder.cache.usage()]);
    const files: StoredFile[] = [
      ...downloaded.map(({ url, usedMillis: _, ...file }) => ({ ...file, name: fileName(url) })),
      ...picked.map(({ name, bytes }) => ({ id: PICKED + name, name, bytes, isComplete: true })),
    ];
    return { files, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0), ...(quota === undefined ? {} : { quota }) };
  }

  /** Deletes a kept file. A model that was loaded from it stays loaded. */
  async deleteFile(id: string, settings: Settings): Promise<void> {
    if (id.startsWith(PICKED)) await deletePicked(id.slice(PICKED.length));
    else await (await this.#instance(settings.device)).cache.delete(id);
  }

  /** Ends the worker and gives back all memory; the next call starts afresh. */
  async end(): Promise<void> {
    const ended = this.#cinder;
    this.#cinder = undefined;
    this.#model = undefined;
    await ended?.instance.dispose();
    this.#tell({ phase: "asleep" });
  }

  async #instance(device: Settings["device"]): Promise<Cinder> {
    if (this.#cinder !== undefined && this.#cinder.device !== device) await this.end();
    this.#cinder ??= { device, instance: this.#make(device) };
    return this.#cinder.instance;
  }

  #make(device: Settings["device"]): Cinder {
    return new Cinder({
      device,
      limits: { perUser: { concurrent: CONCURRENT_PER_CALLER } },
      onProgress: (progress) => this.#progress(progress),
      logger: console,
      workerUrl: chrome.runtime.getURL("worker.js"),
    });
  }

  /** Puts the chosen model in the place of an earlier one; one choice after the other. */
  #register(cinder: Cinder, choice: ModelChoice): Promise<void> {
    const register = (): Promise<void> => this.#replace(cinder, choice);
    this.#registering = this.#registering.then(register, register);
    return this.#registering;
  }

  async #replace(cinder: Cinder, choice: ModelChoice): Promise<void> {
    const text = JSON.stringify(choice);
    if (this.#model?.choice === text) return;
    const source = "url" in choice ? { id: choice.id, url: choice.url } : { id: choice.id, file: await this.#picked(choice.file) };
    const earlier = this.#model;
    this.#model = undefined;
    this.#loading = undefined;
    if (earlier !== undefined) await cinder.unload(earlier.id);
    cinder.register(source);
    this.#model = { choice: text, id: choice.id };
  }

  async #picked(name: string): Promise<File> {
    try {
      return await openPicked(name);
    } catch (thrown) {
      const error = failure("model_not_found", `${name} is not kept any more: pick it again in cinderlm’s panel. (${messageOf(thrown)})`, "model");
      this.#tell({ phase: "error", error });
      throw new CompletionError(error);
    }
  }

  async #load(cinder: Cinder, model: string): Promise<void> {
    this.#tell({ phase: "loading", model });
    try {
      await cinder.load(model);
      const device = await cinder.device();
      if (this.#isCurrent(cinder, model)) this.#tell({ phase: "ready", model, device });
    } catch (thrown) {
      // Another model was chosen meanwhile, or the engine was ended: that is what is shown.
      if (this.#isCurrent(cinder, model)) this.#tell({ phase: "error", error: bodyOf(thrown) });
      throw thrown;
    }
  }

  #isCurrent(cinder: Cinder, model: string): boolean {
    return this.#cinder?.instance === cinder && this.#model?.id === model;
  }

  #progress(progress: LoadProgress): void {
    const now = performance.now();
    if (progress.phase === "ready" || this.#state.phase !== "loading" || now - this.#toldAt < PROGRESS_MILLIS) return;
    this.#toldAt = now;
    this.#tell({ phase: "loading", model: progress.model, progress });
  }

  #tell(state: EngineState): void {
    this.#state = state;
    this.#onState(state);
  }
}

/** Any failure as it crosses contexts. */
export function bodyOf(thrown: unknown): ErrorBody {
  if (!(thrown instanceof CompletionError)) return failure("internal", messageOf(thrown));
  const { status, type, code, param, message, retry_after } = thrown;
  return { status, type, code, param, message, ...(retry_after === undefined ? {} : { retry_after }) };
}

function fileName(url: string): string {
  const name = new URL(url).pathname.replace(/^.*\//, "");
  try {
    return decodeURIComponent(name) || url;
  } catch {
    return name; // A percent sign of its own.
  }
}
