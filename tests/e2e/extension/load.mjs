// Chromium with the extension in it, as a developer would load it: unpacked.
//
// Neither the browser's shortcuts nor its questions about permissions can be reached by automation. So the tests load a copy of the built
// extension whose manifest differs in one thing: the hosts that a user could allow are granted for this machine. The shortcut is fired where
// it arrives, at the background's own listener. Nothing in the extension itself knows of tests.
import { build } from "esbuild";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { CHROMIUM_FLAGS, chromiumPath, SOFTWARE_GPU } from "../browsers.mjs";
import { until } from "./until.mjs";

const extension = fileURLToPath(new URL("../../../www/extension", import.meta.url));
const callerFolder = fileURLToPath(new URL("caller", import.meta.url));
/** The extension as it ships. */
export const dist = join(extension, "dist");
export const distFirefox = join(extension, "dist-firefox");

/** Hosts that the copies may reach, as if the user had allowed them. */
const GRANTED = ["http://localhost/*", "http://127.0.0.1/*"];

/** Writes what is loaded into a folder: the extension, and two others that call it. */
export function prepare() {
  const folder = mkdtempSync(join(tmpdir(), "cinderlm-extension-"));
  const own = join(folder, "cinderlm");
  cpSync(dist, own, { recursive: true });
  const manifest = JSON.parse(readFileSync(join(own, "manifest.json"), "utf8"));
  writeFileSync(join(own, "manifest.json"), JSON.stringify({ ...manifest, host_permissions: GRANTED }));
  // A page of the extension from which tests use its interfaces; the panel would wake the engine.
  writeFileSync(join(own, "control.html"), "<!doctype html><title>control</title>");
  const callers = ["first", "second"].map((name) => {
    const caller = join(folder, name);
    cpSync(callerFolder, caller, { recursive: true });
    cpSync(join(dist, "client.js"), join(caller, "client.js"));
    return caller;
  });
  return { folder, extensions: [own, ...callers], profile: join(folder, "profile"), remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Starts Chromium with prepared extensions. Returns what tests do with it. */
export async function launchWith({ extensions, profile }) {
  mkdirSync(profile, { recursive: true });
  const executablePath = chromiumPath();
  const context = await chromium.launchPersistentContext(profile, {
    ...(executablePath === undefined ? {} : { executablePath }),
    headless: false, // Playwright's own flag for it would be the old mode, which has no extensions.
    viewport: { width: 900, height: 640 },
    args: [
      "--headless=new",
      SOFTWARE_GPU,
      ...CHROMIUM_FLAGS,
      `--disable-extensions-except=${extensions.join(",")}`,
      `--load-extension=${extensions.join(",")}`,
    ],
  });
  const id = await extensionNamed(context, "cinderlm");
  const control = await context.newPage();
  await control.goto(`chrome-extension://${id}/control.html`);
  return { context, id, control, callers: () => callerPages(context), close: () => context.close() };
}

/** Id of the extension with this name. */
async function extensionNamed(context, name) {
  return until(`the extension ${name}`, async () => {
    for (const worker of context.serviceWorkers()) {
      const found = await worker.evaluate(() => chrome.runtime.getManifest?.().name).catch(() => undefined); // It may be starting.
      if (found === name) return new URL(worker.url()).host;
    }
    return undefined;
  });
}

/** A page of each calling extension, which has the client at hand. */
async function callerPages(context) {
  const ids = await until("the calling extensions", async () => {
    const found = [];
    for (const worker of context.serviceWorkers()) if (worker.url().endsWith("/caller.js")) found.push(new URL(worker.url()).host);
    return found.length === 2 ? found : undefined;
  });
  return Promise.all(
    ids.map(async (id) => {
      const page = await context.newPage();
      await page.goto(`chrome-extension://${id}/caller.html`);
      return { id, page };
    }),
  );
}

/** A script for pages, from a source beside this file and the packages of the workspace. */
export async function bundle(source) {
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: fileURLToPath(new URL(".", import.meta.url)), loader: "jsx" },
    bundle: true,
    write: false,
    format: "esm",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  return Buffer.from(outputFiles[0].contents);
}
