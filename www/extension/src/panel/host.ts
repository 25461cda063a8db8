import { openPort } from "../connect.js";
import { PORT, type EngineState, type PanelReply, type PanelRequest, type StorageReport } from "../messages.js";

type Ask = PanelRequest extends infer Each ? (Each extends { id: number } ? Omit<Each, "id"> : never) : never;

interface Waiter {
  resolve(storage: StorageReport | undefined): void;
  reject(error: Error): void;
}

/** The panel's end of its port to the engine's host. A host that has gone to sleep is woken by the next request, and not before. */
export class HostPort {
  readonly #onState: (state: EngineState) => void;
  readonly #waiters = new Map<number, Waiter>();
  #port: Promise<chrome.runtime.Port> | undefined;
  #nextId = 1;

  constructor(onState: (state: EngineState) => void) {
    this.#onState = onState;
  }

  /** Asks for something, and gives what is kept now where that was asked for. */
  async ask(request: Ask): Promise<StorageReport | undefined> {
    const port = await this.#open();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiters.set(id, { resolve, reject });
      port.postMessage({ ...request, id } satisfies PanelRequest);
    });
  }

  #open(): Promise<chrome.runtime.Port> {
    this.#port ??= openPort(PORT.panel).then((port) => {
      port.onMessage.addListener((reply: PanelReply) => this.#hear(reply));
      port.onDisconnect.addListener(() => this.#lost());
      return port;
    });
    this.#port.catch(() => (this.#port = undefined)); // Whoever asked hears of it.
    return this.#port;
  }

  #hear(reply: PanelReply): void {
    if (reply.type === "state") return this.#onState(reply.state);
    const waiter = this.#waiters.get(reply.id);
    this.#waiters.delete(reply.id);
    if (reply.type === "done") waiter?.resolve(reply.storage);
    else waiter?.reject(new Error(reply.error.message));
  }

  #lost(): void {
    this.#port = undefined;
    for (const { reject } of this.#waiters.values()) reject(new Error("The engine was ended meanwhile."));
    this.#waiters.clear();
    this.#onState({ phase: "asleep" });
  }
}
