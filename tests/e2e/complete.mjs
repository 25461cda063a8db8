// `cargo xtask complete`: one completion in a real browser, its text on the terminal as it comes.
import { basename } from "node:path";
import { launch } from "./browsers.mjs";
import { serve } from "./server.mjs";
import { foldChunks, TerminalText } from "./text.mjs";

const task = JSON.parse(process.argv[2]);
const { id, file, url } = task.model;
const path = file === undefined ? undefined : `/models/${basename(file)}`;
const address = url ?? encodeURI(path);
const seconds = (millis) => `${(millis / 1000).toFixed(2)} s`;

const server = await serve({ files: path === undefined ? {} : { [path]: file } });
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
  const text = new TerminalText((part) => process.stdout.write(part));
  const chunks = [];
  const show = (chunk) => {
    if (task.json) chunks.push(chunk);
    else text.take(chunk);
  };
  await page.expose("emitChunk", show);
  await page.expose("emitProgress", showProgress);
  const { value, error } = await page.evaluate(completeInPage, { ...task, id, address });
  if (error !== undefined) {
    const where = error.param == null ? "" : ` (${error.param})`;
    console.error(`\nerror: ${error.code ?? error.name}${where}: ${error.message}`);
    return 1;
  }
  const completion = value.completion ?? foldChunks(chunks);
  if (task.json) {
    console.log(JSON.stringify(completion, null, 2));
    return 0;
  }
  text.take(value.completion ?? { choices: [] });
  text.end();
  report(value);
  return 0;
}

/** Runs in the page. Streams unless asked not to, or unless only a whole completion can answer. */
async function completeInPage({ device, id, address, request, json }) {
  const { Cinder } = globalThis.cinderlm;
  const started = performance.now();
  const cinder = new Cinder({ device, models: [{ id, url: address }], onProgress: globalThis.emitProgress });
  const work = async () => {
    const chosen = await cinder.device();
    await cinder.load(id);
    const loadMillis = performance.now() - started;
    const { stream = !json && !(request.best_of > (request.n ?? 1)) } = request;
    const params = { ...request, model: id, stream };
    if (stream !== true) {
      const completion = await cinder.complete(params);
      return { device: chosen, loadMillis, completion, info: completion.cinderlm };
    }
    params.stream_options ??= { include_usage: true };
    let info;
    for await (const chunk of await cinder.complete(params)) {
      await globalThis.emitChunk(chunk);
      info = chunk.cinderlm ?? info;
    }
    return { device: chosen, loadMillis, info };
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

function report({ device, loadMillis, info }) {
  const { timings } = info;
  const first = timings.first_token_millis === null ? "no token" : `first token after ${seconds(timings.first_token_millis)}`;
  const rate = timings.tokens_per_second === null ? "" : `, ${timings.tokens_per_second.toFixed(1)} tokens/s`;
  console.error(`\n${device.name} (${device.reason})\nloaded in ${seconds(loadMillis)}, ${first}${rate}`);
}
