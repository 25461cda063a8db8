import { initActivity } from "./activity.js";
import { AlternativesPopover } from "./alternatives.js";
import { CATALOGUE } from "./catalogue.js";
import { copyText } from "./clipboard.js";
import { initDevicePanel } from "./device-panel.js";
import { button, byId, make } from "./dom.js";
import { initModelPanel } from "./model-panel.js";
import { addressFault, modelAt, type ChosenModel } from "./models.js";
import { initOffline, keepModule, moduleOf } from "./offline.js";
import { OutputView } from "./output.js";
import { choicesPerPrompt, toParams, type RawParams } from "./params.js";
import { planOutput } from "./plan.js";
import { RequestForm } from "./request-form.js";
import { freshState, Session, type AppState } from "./session.js";
import { decodeShare, encodeShare } from "./share.js";
import { toSnippet } from "./snippet.js";
import { initStats } from "./stats.js";
import { initStoragePanel } from "./storage-panel.js";
import { Store } from "./store.js";
import { initTheme } from "./theme.js";

const EXAMPLES = ["The capital of France is", "Three things that glow in the dark:\n1.", "def fibonacci(n):\n"];

/** The page: its parts, and what each of them sets off in the others. */
class Page {
  readonly #store = new Store<AppState>(freshState());
  readonly #session = new Session(this.#store);
  readonly #popover = new AlternativesPopover(byId("alternatives", HTMLElement));
  readonly #output = new OutputView(this.#popover, (text) => this.#copy(text, "Text"));
  readonly #form = new RequestForm(() => this.#showSnippet());
  readonly #run = byId("run", HTMLButtonElement);
  readonly #stop = byId("stop", HTMLButtonElement);
  /** The last request. */
  #sent: RawParams | undefined;

  start(): void {
    initTheme(byId("theme-toggle", HTMLButtonElement));
    initStats(this.#store);
    initActivity(this.#store, { stop: () => this.#session.stop(), retry: () => this.#retry() });
    initDevicePanel(this.#store, (device) => this.#guard(this.#session.useDevice(device)));
    initModelPanel(this.#store, { choose: (model) => this.#choose(model), load: () => this.#guard(this.#session.load()) });
    initStoragePanel(this.#store, {
      delete: (file) => this.#guard(this.#session.deleteFile(file.id)),
      persist: () => this.#guard(this.#persist()),
    });
    this.#bindForm();
    this.#bindKeys();
    this.#store.watch((state, before) => this.#follow(state, before));
    this.#openAddress();
    window.addEventListener("hashchange", () => this.#openAddress());
    this.#guard(this.#session.probe());
    this.#guard(this.#session.refreshStorage());
    this.#guard(this.#initOffline());
  }

  #bindForm(): void {
    byId("request", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      this.#complete();
    });
    this.#stop.addEventListener("click", () => this.#session.stop());
    byId("share", HTMLButtonElement).addEventListener("click", () => this.#share());
    byId("snippet-copy", HTMLButtonElement).addEventListener("click", () => this.#copy(byId("snippet", HTMLElement).textContent ?? "", "Code"));
    const examples = EXAMPLES.map((example) => button(example.split("\n")[0] ?? "", () => this.#useExample(example), "example"));
    byId("examples", HTMLElement).append(...examples);
  }

  #bindKeys(): void {
    window.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#complete();
      } else if (event.key === "Escape") {
        this.#popover.hide(false);
        this.#session.stop();
      }
    });
  }

  #complete(): void {
    const { model, phase } = this.#store.state;
    if (model === undefined || phase !== "idle") return;
    this.#form.clearFaults();
    this.#send(toParams(this.#form.values, model.id));
  }

  #send(params: RawParams): void {
    this.#sent = params;
    byId("empty", HTMLElement).hidden = true;
    this.#output.begin(planOutput(params, choicesPerPrompt(params)));
    this.#guard(this.#session.run(params, (choices) => this.#output.push(choices)));
    this.#showOutput();
  }

  /** Does again what failed: the request as it was sent, or the load. */
  #retry(): void {
    if (this.#store.state.outcome === "failed" && this.#sent !== undefined) this.#send(this.#sent);
    else this.#guard(this.#session.load());
  }

  /** On a phone the text comes below what the visitor sees. */
  #showOutput(): void {
    const output = byId("output", HTMLElement);
    if (output.getBoundingClientRect().top > innerHeight / 2) output.scrollIntoView();
  }

  /** What a change of state sets off beyond the views that draw it. */
  #follow({ phase, problem, model, outcome }: AppState, before: AppState): void {
    const isBusy = phase !== "idle";
    this.#stop.hidden = !isBusy;
    this.#run.disabled = isBusy || model === undefined;
    byId("output", HTMLElement).setAttribute("aria-busy", String(isBusy));
    if (model !== before.model) this.#showSnippet();
    if (outcome !== before.outcome && outcome === "failed" && this.#output.nTokens === 0) this.#output.clear();
    if (problem !== before.problem && problem?.param !== undefined) this.#form.showFault(problem.param, problem.message);
  }

  #showSnippet(): void {
    const { model } = this.#store.state;
    byId("snippet", HTMLElement).textContent = toSnippet(toParams(this.#form.values, model?.id ?? "model"), model);
  }

  #choose(model: ChosenModel): void {
    this.#guard(this.#session.choose(model));
  }

  #useExample(prompt: string): void {
    this.#form.fill({ ...this.#form.values, prompt, prompt_kind: "text" });
    this.#showSnippet();
  }

  /** Takes over what the address holds: a shared request after `#`, a model in `?model=`. Nothing is downloaded before it is asked for. */
  #openAddress(): void {
    const shared = decodeShare(location.hash);
    const asked = shared?.model ?? new URL(location.href).searchParams.get("model") ?? undefined;
    if (shared !== undefined) this.#form.fill(shared.values);
    const fault = asked === undefined ? undefined : addressFault(asked, document.baseURI);
    if (fault !== undefined) this.#say(`The model in the address cannot be used. ${fault}`);
    const address = asked === undefined || fault !== undefined ? CATALOGUE[0]?.address : asked;
    if (address !== undefined && (asked !== undefined || this.#store.state.model === undefined)) this.#choose(modelAt(address, document.baseURI));
    this.#showSnippet();
  }

  #share(): void {
    const { model } = this.#store.state;
    const address = model !== undefined && "address" in model.source ? { model: model.source.address } : {};
    const url = new URL(location.href);
    url.search = "";
    url.hash = encodeShare({ values: this.#form.values, ...address });
    history.replaceState(null, "", url);
    this.#copy(url.href, "Link");
  }

  #copy(text: string, what: string): void {
    this.#guard(copyText(text, what).then((outcome) => this.#say(outcome)));
  }

  async #persist(): Promise<void> {
    if (!(await this.#session.persist())) this.#say("The browser did not agree to keep it. It may once the page is installed or visited more.");
  }

  async #initOffline(): Promise<void> {
    const line = byId("offline", HTMLElement);
    const isStored = await initOffline({
      onFailure: (message) => (line.textContent = message),
      onUpdate: (activate) => {
        const notice = byId("update", HTMLElement);
        notice.replaceChildren(make("span", { text: "There is a new version of this page." }), button("Reload", activate));
        notice.hidden = false;
      },
    });
    let kept: string | undefined;
    if (isStored) {
      this.#store.watch(({ deviceInfo }) => {
        if (deviceInfo === undefined || moduleOf(deviceInfo) === kept) return;
        kept = moduleOf(deviceInfo);
        this.#guard(keepModule(kept).then((isKept) => void (line.textContent = isKept ? "The page opens without a network." : "The page could not be kept for offline use.")));
      });
    }
  }

  #say(text: string): void {
    byId("status", HTMLElement).textContent = text;
  }

  /** What nobody waits for and nothing else expects to fail still reaches the visitor. */
  #guard(work: Promise<unknown>): void {
    work.catch((error: unknown) => this.#say(`Something went wrong: ${error instanceof Error ? error.message : String(error)}`));
  }
}

new Page().start();
