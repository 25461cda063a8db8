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
 * `limitStorage(bytes)`, and on Linux `peakBytes(page)`
 * is what the processes of the page (told by the work that it is given) and of the GPU have at most held in memory, each at its own time, and
 * `countWorkers()` the number of dedicated workers in all pages.
 */
export async function launch(name, { software = true } = {}) {
  const browser = name === "chromium" ? await launchChromium(software) : await launchFirefox();
  const tabs = name === "chromium" ? await browser.newContext() : browser;
  return {
    name,
    newPage: async (url) => wrapPage(await browser.newPage(), url),
    newTab: async (url) => wrapPage(await tabs.newPage(), url),
    newEmptyPage: () => browser.newPage(),
    peakBytes: (page) => peakBytes(browser, page),
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

async function peakBytes(browser, page) {
  const processes = () => processesOf(browser);
  // First, since what follows takes memory too.
  const found = (await processes()).filter(({ type }) => type === "renderer" || type === "GPU");
  const peaks = new Map(await Promise.all(found.map(async ({ id }) => [id, await peakResidentBytes(id)])));
  // Chromium's own pages are busy for a while after it has started.
  await new Promise((resolve) => setTimeout(resolve, 2000));
  const before = new Map((await processes()).map(({ id, cpuTime }) => [id, cpuTime]));
  await page.evaluate(() => {
    const end = performance.now() + 1500;
    while (performance.now() < end);
  });
  const after = (await processes()).filter(({ id, cpuTime }) => cpuTime - (before.get(id) ?? cpuTime) > 0.3);
  const own = after.filter(({ id, type }) => type === "renderer" && peaks.has(id));
  const gpu = found.filter(({ type }) => type === "GPU");
  if (own.length !== 1 || gpu.length !== 1) throw new Error(`which is the page's process? ${JSON.stringify({ found, after })}`);
  return peaks.get(own[0].id) + peaks.get(gpu[0].id);
}

/** Linux's high-water mark, which misses no peak however short. */
async function peakResidentBytes(id) {
  const status = await readFile(`/proc/${id}/status`, "utf8");
  return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)[1]) * 1024;
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
