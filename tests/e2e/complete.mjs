// `cargo xtask complete`: one completion in a real browser, its text on the terminal as it comes.
import { basename } from "node:path";
import { launch } from "./browsers.mjs";
import { serve } from "./server.mjs";

const task = JSON.parse(process.argv[2]);
const { id, file, url } = task.model;
const address = url ?? `/models/${encodeURIComponent(basename(file))}`;
const seconds = (millis) => `${(millis / 1000).toFixed(2)} s`;

const server = await serve({ files: file === undefined ? {} : { [decodeURIComponent(address)]: file } });
const browser = await launch(task.browser, { software: false });
const closeAll = async () => {
  await browser.close();
  await server.close();
};
process.on("SIGINT", () => void closeAll().finally(() => process.exit(130)));

try {
  process.exitCode = await run(await browser.newPage(`${server.url}/`));
} finally {
  await closeAll();
}

async function run(page) {
  await page.expose("emitText", (text) => void process.stdout.write(text));
  await page.expose("emitProgress", showProgress);
  const { value, error } = await page.evaluate(completeInPage, { ...task, id, address });
  if (error !== undefined) {
    const where = error.param == null ? "" : ` (${error.param})`;
    console.error(`\nerror: ${error.code ?? error.name}${where}: ${error.message}`);
    return 1;
  }
  report(value);
  return 0;
}

/** Runs in the page. One choice is streamed; several, and `--json`, come whole. */
async function completeInPage({ device, id, address, request, json }) {
  const { Cinder } = globalThis.cinderlm;
  const started = performance.now();
  const cinder = new Cinder({ device, models: [{ id, url: address }], onProgress: globalThis.emitProgress });
  const work = async () => {
    const chosen = await cinder.device();
    await cinder.load(id);
    const loadMillis = performance.now() - started;
    const params = { ...request, model: id };
    const single = !Array.isArray(params.prompt) && (params.n ?? 1) === 1 && (params.best_of ?? 1) === 1;
    if (json || !single) {
      return { device: chosen, loadMillis, completion: await cinder.complete({ ...params, stream: false }), json };
    }
    let last;
    for await (const chunk of await cinder.complete({ ...params, stream: true, stream_options: { include_usage: true } })) {
      last = chunk;
      for (const choice of chunk.choices) await globalThis.emitText(choice.text);
    }
    return { device: chosen, loadMillis, last };
  };
  const outcome = await globalThis.settle(work());
  await cinder.dispose();
  return outcome;
}

function showProgress({ phase, bytes, total }) {
  if (!process.stderr.isTTY) return;
  const share = total === undefined ? "" : ` of ${(total / 1e6).toFixed(0)}`;
  process.stderr.write(phase === "ready" ? "\r\x1b[K" : `\rreading the model: ${(bytes / 1e6).toFixed(0)}${share} MB`);
}

function report({ device, loadMillis, completion, last, json }) {
  if (json) {
    console.log(JSON.stringify(completion, null, 2));
    return;
  }
  if (completion !== undefined) {
    for (const { index, text } of completion.choices) console.log(`--- choice ${index}\n${text}`);
  } else {
    process.stdout.write("\n");
  }
  const { timings } = (completion ?? last).cinderlm;
  const first = timings.first_token_millis === null ? "no token" : `first token after ${seconds(timings.first_token_millis)}`;
  const rate = timings.tokens_per_second === null ? "" : `, ${timings.tokens_per_second.toFixed(1)} tokens/s`;
  console.error(`\n${device.name} (${device.reason})\nloaded in ${seconds(loadMillis)}, ${first}${rate}`);
}
