// Chromium and Firefox behind one small interface, so that a test is written once.
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";

export const BROWSERS = ["chromium", "firefox"];

/** What every Chromium here is started with: nothing that reaches for the network by itself. */
export const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--enable-unsafe-webgpu",
];

/** Has Chromium run WebGPU in software. */
export const SOFTWARE_GPU = "--use-webgpu-adapter=swiftshader";

const FIREFOX_PREFERENCES = {
  "dom.webgpu.enabled": true,
  "gfx.webgpu.ignore-blocklist": true,
};

/**
 * Starts a browser without a window.
 *
 * With `software`, WebGPU runs in software whatever the machine has: SwiftShader in Chromium, Mesa's lavapipe in Firefox (which
 * `VK_ICD_FILENAMES` must name). `CHROMIUM` and `FIREFOX` name the programs when they are not on PATH.
 *
 * Returns `{ name, newPage(url), newTab(url), newEmptyPage(), close() }`: a page's storage is its own in Chromium, and tabs share theirs. A page has `evaluate(function, argument)`, `expose(name, function)`,
 * `errors` (console errors and uncaught exceptions so far), `reload()` and `close()`. Chromium can also `crashGpu()` and, of a page,
 * `limitStorage(bytes)`, and on Linux `countWorkers()` is the number of dedicated workers in all pages and, with `watchesMemory`, `peakBytes(page)`
 * what the processes of the page (told by the work that it is given) and of the GPU have at most held in memory since the start, each at its own time.
 */
export async function launch(name, { software = true, watchesMemory = false } = {}) {
  const browser = name === "chromium" ? await launchChromium(software) : await launchFirefox();
  const tabs = name === "chromium" ? await browser.newContext() : browser;
  const memory = watchesMemory ? watchMemory(browser) : undefined;
  return {
    name,
    newPage: async (url) => wrapPage(await browser.newPage(), url),
    newTab: async (url) => wrapPage(await tabs.newPage(), url),
    newEmptyPage: () => browser.newPage(),
    peakBytes: (page) => peakBytes(browser, page, memory),
    countWorkers: () => countWorkers(browser),
    crashGpu: () => withSession(browser, (session) => session.send("Browser.crashGpuProcess")),
    close: () => browser.close(),
  };
}

async function launchChromium(software) {
  const { chromium } = await import("playwright-core");
  const executablePath = chromiumPath();
  const args = software ? [...CHROMIUM_FLAGS, SOFTWARE_GPU] : CHROMIUM_FLAGS;
  return chromium.launch({ ...(executablePath === undefined ? {} : { executablePath }), args });
}

/** Where Chromium is; undefined if only Playwright's own may be there. */
export function chromiumPath() {
  return program("CHROMIUM", ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"]);
}

async function launchFirefox() {
  const { default: puppeteer } = await import("puppeteer-core");
  const executablePath = program("FIREFOX", ["firefox-esr", "firefox"]);
  if (executablePath === undefined) throw new Error("Firefox was not found: set FIREFOX to where it is");
  return puppeteer.launch({
    browser: "firefox",
    executablePath,
    headless: true,
    extraPrefsFirefox: FIREFOX_PREFERENCES,
    // A software GPU can keep a call waiting for longer than the default of three minutes.
    protocolTimeout: 30 * 60_000,
  });
}

/** Chromium's own protocol, for what has no other way. */
async function withSession(browser, use) {
  const session = await browser.newBrowserCDPSession();
  try {
    return await use(session);
  } finally {
    await session.detach();
  }
}

/** Chromium's processes. */
async function processesOf(browser) {
  return (await withSession(browser, (session) => session.send("SystemInfo.getProcessInfo"))).processInfo;
}

/** By their threads, which Chromium names. A worker that waits answers nobody. */
async function countWorkers(browser) {
  const pages = (await processesOf(browser)).filter(({ type }) => type === "renderer");
  const threads = await Promise.all(pages.map(({ id }) => readdir(`/proc/${id}/task`).then((ids) => ids.map((thread) => `/proc/${id}/task/${thread}/comm`))));
  const names = await Promise.all(threads.flat().map((path) => readFile(path, "utf8").catch(() => ""))); // Some end meanwhile.
  return names.filter((name) => name.startsWith("DedicatedWorker")).length;
}

async function peakBytes(browser, page, memory) {
  const processes = () => processesOf(browser);
  // First, since what follows takes memory too.
  const peaks = await memory.stop();
  // Chromium's own pages are busy for a while after it has started.
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const before = new Map((await processes()).map(({ id, cpuTime }) => [id, cpuTime]));
  await page.evaluate(() => {
    const end = performance.now() + 1500;
    while (performance.now() < end);
  });
  const after = (await processes()).filter(({ id, cpuTime }) => peaks.has(id) && cpuTime - (before.get(id) ?? cpuTime) > 0.3);
  const own = after.filter(({ type }) => type === "renderer").map(({ id }) => id);
  const gpus = [...memory.gpus];
  if (own.length !== 1 || gpus.length !== 1) throw new Error(`which is the page's process, and the GPU's? ${JSON.stringify({ peaks: [...peaks], gpus, after })}`);
  return peaks.get(own[0]) + peaks.get(gpus[0]);
}

/** Between two looks at the memory of processes. */
const WATCH_MILLIS = 10;
/** Looks at memory for one at which processes there are. */
const LOOKS_PER_LIST = 10;

/**
 * Watches the memory of a browser's processes. `stop()` gives the most bytes that each has held, by its id; `gpus` are those that were the GPU's.
 *
 * Linux keeps a high-water mark, which misses no peak however short, but Chromium sets it back for its own statistics, some seconds after a start:
 * the mark that is found at the end can be 120 MB below the peak.
 */
function watchMemory(browser) {
  const peaks = new Map();
  const gpus = new Set();
  const look = async (id) => {
    const bytes = await highWaterBytes(id);
    peaks.set(id, Math.max(peaks.get(id) ?? 0, bytes));
  };
  const list = async () => {
    const found = (await processesOf(browser)).filter(({ type }) => type === "renderer" || type === "GPU");
    for (const { id, type } of found) if (type === "GPU") gpus.add(id);
    return found.map(({ id }) => id);
  };
  let isStopped = false;
  const watch = async () => {
    for (let looks = 0, ids = []; !isStopped; looks += 1) {
      if (looks % LOOKS_PER_LIST === 0) ids = await list();
      await Promise.all(ids.map(look));
      await new Promise((resolve) => setTimeout(resolve, WATCH_MILLIS));
    }
  };
  const watching = watch();
  // Whoever stops it hears of a failure; until then nobody waits for it.
  watching.catch(() => {});
  return {
    gpus,
    stop: async () => {
      isStopped = true;
      await Promise.all([...(await list()), ...peaks.keys()].map(look));
      await watching;
      return peaks;
    },
  };
}

/** The most that a process held since Linux's mark was set back; 0 if it has ended. */
async function highWaterBytes(id) {
  const status = await readFile(`/proc/${id}/status`, "utf8").catch(() => "");
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

function program(variable, names) {
  const given = process.env[variable];
  if (given !== undefined) return given;
  const folders = (process.env.PATH ?? "").split(delimiter);
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}

async function wrapPage(page, url) {
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  const isReady = () => page.waitForFunction(() => globalThis.cinderlm !== undefined);
  await page.goto(url);
  await isReady();
  return {
    errors,
    reload: async () => {
      await page.reload();
      await isReady();
    },
    limitStorage: async (quotaSize) => {
      const session = await page.context().newCDPSession(page);
      await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(url).origin, quotaSize });
    },
    evaluate: (run, argument) => page.evaluate(run, argument),
    expose: (name, run) => page.exposeFunction(name, run),
    close: () => page.close(),
  };
}
