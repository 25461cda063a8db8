// One contender's turn: started afresh, loaded, measured, ended.
import { spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { launch } from "../e2e/browsers.mjs";
import { callsFor, CONTEXT_LENGTH, N_SHOWN, SHORT_CONTEXT_LENGTH, tokensOf } from "./measures.mjs";
import { SHOWN } from "./prompts.mjs";

/** A turn that takes longer has failed. */
const MINUTES = 45;
/** A browser that is busy may not hear that it is to close; it is ended with this process at the latest. */
const CLOSE_SECONDS = 30;

/**
 * What a turn drives: a page that puts the same into `globalThis.bench`, or `native.py`.
 *
 * @typedef {object} Driver
 * @property {(method: "load" | "run" | "tokenize" | "detokenize" | "features" | "peak", argument?: unknown) => Promise<any>} call
 *   `load(options)` makes it ready and tells what runs. `run({ prompt, maxTokens, n })` completes greedily, past any end of text, and gives
 *   `{ firstMillis, lastMillis, text, tokens, promptTokens }`: when the first token and the last one came, the first choice's text, how many tokens
 *   came in all choices, and how many the prompt had.
 * @property {() => Promise<number>} [sinceStart] Milliseconds since the page's address was opened.
 * @property {() => Promise<number>} peakBytes
 * @property {() => Promise<void>} close
 */

/**
 * Opens a contender; `peakBytes` of a page's takes `watchesMemory`.
 *
 * `setting` is `{ servers: { plain, isolated }, model, python, isSoftware }`: where pages are, and what the native program needs.
 *
 * @returns {Promise<Driver>}
 */
export async function open(contender, setting, { watchesMemory = false } = {}) {
  return contender.driver === "page" ? openPage(contender, setting, watchesMemory) : openNative(setting);
}

async function openPage({ page: name, browser: browserName, isolated = false }, { servers, isSoftware }, watchesMemory) {
  const browser = await launch(browserName, { software: isSoftware, watchesMemory });
  try {
    const page = await browser.newEmptyPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error") errors.push(message.text());
    });
    await page.goto(`${(isolated ? servers.isolated : servers.plain).url}/bench/${name}`);
    await page.waitForFunction(() => globalThis.bench !== undefined, undefined).catch((error) => {
      throw new Error([error.message, ...errors].join("; "));
    });
    return {
      call: (method, argument) =>
        page.evaluate(([name, given]) => globalThis.bench[name](given), [method, argument]).catch((error) => {
          throw new Error([error.message, ...errors].join("; "));
        }),
      sinceStart: () => page.evaluate(() => performance.now()),
      peakBytes: () => browser.peakBytes(page),
      close: () => browser.close(),
    };
  } catch (error) {
    await browser.close();
    throw error;
  }
}

async function openNative({ python, model }) {
  const program = spawn(python, [fileURLToPath(new URL("native.py", import.meta.url)), model], { stdio: ["pipe", "pipe", "inherit"] });
  const waiting = [];
  createInterface({ input: program.stdout }).on("line", (line) => waiting.shift()?.resolve(JSON.parse(line)));
  const fail = (error) => waiting.splice(0).forEach(({ reject }) => reject(error));
  program.on("error", fail);
  program.on("exit", (code, signal) => fail(new Error(`native.py ended with ${code ?? signal}`)));
  program.stdin.on("error", fail);
  const call = async (method, argument = null) => {
    const answer = new Promise((resolve, reject) => waiting.push({ resolve, reject }));
    program.stdin.write(`${JSON.stringify([method, argument])}\n`);
    const { value, error } = await answer;
    if (error !== undefined) throw new Error(error);
    return value;
  };
  return { call, peakBytes: () => call("peak"), close: async () => void program.kill() };
}

/** Opens a contender for as long as `use` takes, which is cut off after a while. */
async function withContender(contender, setting, use, watches) {
  const driver = await open(contender, setting, watches);
  let timer;
  const tooLong = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`was not done after ${MINUTES} minutes`)), MINUTES * 60_000);
  });
  try {
    return await Promise.race([use(driver), tooLong]);
  } finally {
    clearTimeout(timer);
    await Promise.race([driver.close(), new Promise((resolve) => setTimeout(resolve, CLOSE_SECONDS * 1000).unref())]);
  }
}

/**
 * One turn: `{ values, text, info }`, the measures of `wanted` that need no turn of their own, what it wrote, and what it runs on.
 *
 * `prompts` are those of `prompts.mjs`; `nDecode` is how many tokens a decode speed is taken from.
 */
export async function takeTurn(contender, setting, { wanted, prompts, nDecode }) {
  const server = contender.isolated ? setting.servers.isolated : setting.servers.plain;
  const nRequests = server.requests.length;
  return withContender(contender, setting, async (driver) => {
    const info = await driver.call("load", loadOptions(contender, setting, CONTEXT_LENGTH));
    const values = driver.sinceStart === undefined ? {} : { load: (await driver.sinceStart()) / 1000 };
    const { text } = await run(driver, SHOWN, { maxTokens: Math.min(N_SHOWN, contender.nDecode ?? N_SHOWN) });
    const results = {};
    for (const call of callsFor(wanted)) {
      const n = call.n ?? 1;
      const result = await run(driver, prompts[call.prompt], { maxTokens: tokensOf(call, wanted, nDecode), n });
      results[call.id] = { ...result, n };
      Object.assign(values, call.gives(results[call.id], results));
    }
    if (wanted.has("runtime") && contender.driver === "page") values.runtime = (await runtimeBytes(server, nRequests)) / 1e6;
    return { values: only(values, wanted), text, info };
  });
}

/** Megabytes that a contender has at most held while it loaded and wrote a short text; `emptyBytes` is what an empty page takes. */
export async function takePeak(contender, setting, emptyBytes) {
  const take = async (driver) => {
    await driver.call("load", loadOptions(contender, setting, SHORT_CONTEXT_LENGTH));
    await run(driver, SHOWN, { maxTokens: Math.min(8, contender.nDecode ?? 8) });
    const bytes = await driver.peakBytes();
    return { peak: bytes / 1e6, ...(contender.driver === "page" ? { overEmpty: (bytes - emptyBytes) / 1e6 } : {}) };
  };
  return withContender(contender, setting, take, { watchesMemory: true });
}

/** What an empty page takes in a fresh browser. */
export async function emptyPageBytes(isSoftware) {
  const browser = await launch("chromium", { software: isSoftware, watchesMemory: true });
  try {
    return await browser.peakBytes(await browser.newEmptyPage());
  } finally {
    await browser.close();
  }
}

function loadOptions({ options }, { modelUrl, modelName }, contextLength) {
  return { ...options, model: modelUrl, name: modelName, contextLength };
}

/** One completion, whose counts of tokens must be what was asked for. */
async function run(driver, { text: prompt, promptTokens }, { maxTokens, n = 1 }) {
  const result = await driver.call("run", { prompt, maxTokens, n });
  if (result.promptTokens !== promptTokens) throw new Error(`counts ${result.promptTokens} tokens in a prompt of ${promptTokens}`);
  if (result.tokens !== maxTokens * n) throw new Error(`wrote ${result.tokens} tokens instead of ${maxTokens * n}`);
  return result;
}

/** What the scripts and modules that a page fetched weigh with gzip, but for those of this bench. */
async function runtimeBytes(server, nRequests) {
  const paths = new Set(server.requests.slice(nRequests).map(({ path }) => path));
  const own = [...paths].filter((path) => /\.(m?js|wasm)$/.test(path) && !path.startsWith("/bench/"));
  const weights = await Promise.all(own.map(async (path) => gzipSync(await readFile(server.files[path]), { level: 9 }).length));
  return weights.reduce((sum, weight) => sum + weight, 0);
}

function only(values, wanted) {
  return Object.fromEntries(Object.entries(values).filter(([measure]) => wanted.has(measure)));
}
