// cinderlm, as `turn.mjs` calls contenders.
import * as cinderlm from "/dist/index.js";

const id = "model";
/** The model's end-of-text tokens, which would end a text before it is measured. */
const NEVER = { 0: -100, 2: -100 };
let cinder;

/** Whether the option `threads` exists: where it does not, a wrong one is not refused. */
function hasThreads() {
  try {
    void new cinderlm.Cinder({ threads: -1 }).dispose();
    return false;
  } catch {
    return true;
  }
}

globalThis.bench = {
  features: () => (hasThreads() ? ["threads"] : []),

  async load({ model, device, threads, contextLength }) {
    if (threads > 1 && !hasThreads()) throw new Error("this cinderlm has no option `threads`");
    cinder = new cinderlm.Cinder({ device, models: [{ id, url: model, contextLength }], ...(threads === undefined ? {} : { threads }) });
    await cinder.load(id);
    const { kind, name, ...rest } = await cinder.device();
    if (kind !== device) throw new Error(`runs on ${kind} instead of ${device}`);
    return { device: name, ...rest };
  },

  async run({ prompt, maxTokens, n = 1 }) {
    const request = { model: id, prompt, max_tokens: maxTokens, temperature: 0, n, logit_bias: NEVER };
    const started = performance.now();
    let [firstMillis, lastMillis, text, usage] = [0, 0, "", null];
    for await (const chunk of await cinder.complete({ ...request, stream: true, stream_options: { include_usage: true } })) {
      usage = chunk.usage ?? usage;
      if (!chunk.choices.some((choice) => choice.text !== "")) continue;
      lastMillis = performance.now() - started;
      if (firstMillis === 0) firstMillis = lastMillis;
      for (const choice of chunk.choices) if (choice.index === 0) text += choice.text;
    }
    return { firstMillis, lastMillis, text, tokens: usage.completion_tokens, promptTokens: usage.prompt_tokens };
  },

  tokenize: (text) => cinder.tokenize(id, text),
  detokenize: (ids) => cinder.detokenize(id, ids),
};
