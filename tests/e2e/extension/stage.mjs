// What all tests of the extension share: one browser with the extension in it, servers of pages and models, and what users do.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { realModel, tinyModel } from "../models.mjs";
import { serve } from "../server.mjs";
import { pressShortcut, setSettings, suggestion } from "./driver.mjs";
import { bundle, dist, launchWith, prepare } from "./load.mjs";
import { CALLER, FIELDS, FIELDS_SCRIPT, LETTER, STRICT } from "./pages.mjs";

export const POEM = JSON.parse(readFileSync(tinyModel().replace(/gguf$/, "json"), "utf8")).greedy[0].text;
/** The tiny model knows its poem from the start of a document, whose token can be written. */
export const START = "<|endoftext|>A cinder slept";
export const LINE = " beside the grate,";
export const PARAMS = { temperature: 0, max_tokens: 100 };

let prepared;
export let server;
export let strict;
export let browser;

/** Starts everything. */
export async function begin() {
  const files = {
    "/tiny.gguf": tinyModel(),
    "/other.gguf": tinyModel(),
    "/real.gguf": realModel(),
    "/fields.html": FIELDS,
    "/fields.js": await bundle(FIELDS_SCRIPT),
    "/caller.html": CALLER,
    "/client.js": readFileSync(`${dist}/client.js`),
    "/letter.html": LETTER,
  };
  server = await serve({ files, storable: true });
  strict = await serve({ files: { "/strict.html": STRICT }, policy: "default-src 'none'" });
  prepared = prepare();
  browser = await launchWith(prepared);
  await useTiny();
}

/** Ends everything. */
export async function end() {
  await browser?.close();
  await server?.close();
  await strict?.close();
  prepared?.remove();
}

/** Starts the browser again, with the same profile. */
export async function restart() {
  await browser.close();
  browser = await launchWith(prepared);
}

/** Settings of most tests: the tiny model, and nothing left to chance. */
export function useTiny() {
  const model = { id: "tiny", url: `${server.url}/tiny.gguf` };
  return setSettings(browser, { model, temperature: 0, maxTokens: 60, trigger: "shortcut", idleMinutes: 10 });
}

/** Settings for what takes a while, or is to be looked at. */
export function useReal() {
  return setSettings(browser, { model: { id: "SmolLM2-135M-Instruct", url: `${server.url}/real.gguf` }, temperature: 0, maxTokens: 60 });
}

/** Opens a page; its errors are collected, and one at the end of a test fails it. */
export async function open(url, use) {
  const page = await browser.context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  try {
    await page.goto(url);
    await use(page);
    assert.deepEqual(errors, []);
  } finally {
    await page.close();
  }
}

/** Opens the page of fields. */
export const openFields = (use) =>
  open(`${server.url}/fields.html`, async (page) => {
    await page.waitForFunction(() => globalThis.isReady);
    await use(page);
  });

/** What a field holds. */
export const contentOf = (page, id) =>
  page.evaluate((id) => document.getElementById(id).value ?? document.getElementById(id).textContent, id);

/** Writes into a field and asks; gives the suggestion when it is whole. */
export async function suggestIn(page, id, text = START) {
  await page.click(`#${id}`);
  await page.keyboard.type(text);
  await pressShortcut(browser, page);
  return suggestion(page);
}

/** Opens the panel as a tab, as wide as it is beside a page. */
export async function withPanel(use, { colorScheme = "light" } = {}) {
  await open(`chrome-extension://${browser.id}/panel.html`, async (page) => {
    await page.setViewportSize({ width: 400, height: 900 });
    await page.emulateMedia({ colorScheme });
    await use(page);
  });
}

/** Allows a page or an extension in the panel, and gives the key that is shown. */
export async function allow(who) {
  let key;
  await withPanel(async (panel) => {
    await panel.fill("#who", who);
    await panel.click("#access-form button");
    key = await panel.textContent("#new-key code");
    const stored = await browser.control.evaluate(async () => JSON.stringify(await chrome.storage.local.get()));
    assert.ok(!stored.includes(key), "only its hash is kept");
  });
  return key;
}

/**
 * Takes a key back in the panel. The panel then gives the permission back too; that it cannot, since the copy of the extension was granted it
 * for good, is not looked at.
 */
export function revoke(who) {
  return withPanel(async (panel) => {
    const button = panel.getByLabel(`Revoke the key of ${who}`);
    await button.click();
    await button.waitFor({ state: "detached" });
  });
}

/** The pages that the bridge is in. */
export const bridges = () =>
  browser.control.evaluate(async () => (await chrome.scripting.getRegisteredContentScripts()).map(({ matches }) => matches[0]));
