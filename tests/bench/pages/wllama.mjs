// wllama on the CPU, as `turn.mjs` calls contenders.
import { LoggerWithoutDebug, Wllama } from "/peers/wllama/index.js";

let wllama;

globalThis.bench = {
  async load({ model, threads, contextLength }) {
    wllama = new Wllama({ default: "/peers/wllama/wasm/wllama.wasm" }, { logger: LoggerWithoutDebug, suppressNativeLog: true });
    await wllama.loadModelFromUrl(new URL(model, location.href).href, { n_threads: threads, n_gpu_layers: 0, n_ctx: contextLength });
    if (wllama.getNumThreads() !== threads) throw new Error(`runs ${wllama.getNumThreads()} threads instead of ${threads}`);
    return { device: "CPU", version: Wllama.getLibllamaVersion() };
  },

  async run({ prompt, maxTokens }) {
    const started = performance.now();
    let [firstMillis, lastMillis, text, timings] = [0, 0, "", null];
    await wllama.createCompletion({
      prompt,
      max_tokens: maxTokens,
      temperature: 0,
      top_k: 1,
      ignore_eos: true,
      stream: true,
      onData: (chunk) => {
        timings = chunk.timings ?? timings;
        const part = chunk.choices[0]?.text ?? "";
        if (part === "") return;
        lastMillis = performance.now() - started;
        if (firstMillis === 0) firstMillis = lastMillis;
        text += part;
      },
    });
    return { firstMillis, lastMillis, text, tokens: timings.predicted_n, promptTokens: timings.prompt_n + timings.cache_n };
  },
};
