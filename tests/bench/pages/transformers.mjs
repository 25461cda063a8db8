// transformers.js, as `turn.mjs` calls contenders.
import { AutoModelForCausalLM, AutoTokenizer, BaseStreamer, env } from "/peers/transformers/transformers.min.js";

env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "/models/";
/** The build that it takes by itself where there is WebGPU. */
const runtime = "/peers/onnxruntime/ort-wasm-simd-threaded.asyncify";
env.backends.onnx.wasm.wasmPaths = { mjs: `${runtime}.mjs`, wasm: `${runtime}.wasm` };

let tokenizer;
let model;

/** Notes when tokens come. */
class Clock extends BaseStreamer {
  constructor() {
    super();
    this.started = performance.now();
    this.times = [];
    this.ids = [];
    this.isPrompt = true;
  }

  put(rows) {
    if (this.isPrompt) {
      this.isPrompt = false;
      return;
    }
    for (const row of rows) this.times.push(...row.map(() => performance.now() - this.started));
    this.ids.push(...rows[0]);
  }

  end() {}
}

globalThis.bench = {
  async load({ name, device, dtype, threads }) {
    env.backends.onnx.wasm.numThreads = threads;
    tokenizer = await AutoTokenizer.from_pretrained(name);
    model = await AutoModelForCausalLM.from_pretrained(name, { device, dtype });
    return { device, version: env.version };
  },

  async run({ prompt, maxTokens, n = 1 }) {
    const clock = new Clock();
    const inputs = await tokenizer(n === 1 ? prompt : new Array(n).fill(prompt), { add_special_tokens: false });
    await model.generate({ ...inputs, max_new_tokens: maxTokens, do_sample: false, streamer: clock });
    const text = tokenizer.decode(clock.ids, { skip_special_tokens: false });
    const { times } = clock;
    return { firstMillis: times[0], lastMillis: times.at(-1), text, tokens: times.length, promptTokens: inputs.input_ids.dims[1] };
  },
};
