// What a visitor of the demo does, and what they see.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { REAL_MODEL, TINY_MODEL } from "./site.mjs";

export { REAL_MODEL, TINY_MODEL };

export const DESKTOP = { width: 1280, height: 800 };
export const NARROW = { width: 360, height: 740 };

/** The real model on one CPU takes some seconds to load and some to write. */
const PATIENCE = { timeout: 120_000 };
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** A visitor with a browser profile of their own. `errors` is what the console complains of: violations of the page's policy among it. */
export async function arrive(browser, { viewport = DESKTOP } = {}) {
  const page = await browser.newEmptyPage();
  await page.setViewportSize(viewport);
  // Colours that are on their way to others have no contrast that could be measured.
  await page.emulateMedia({ reducedMotion: "reduce" });
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  return { page, errors, ...actions(page), ...observations(page) };
}

function actions(page) {
  const setField = async (name, value) => {
    const control = page.locator(`#field-${name}`);
    if (!(await control.isVisible())) await page.locator("#more > summary").click();
    if (typeof value === "boolean") await control.setChecked(value);
    else if (name === "prompt_kind") await control.selectOption(value);
    else await control.fill(value);
  };
  return {
    open: async (url) => {
      await page.goto(url);
      await page.locator("#device-chip", { hasText: "Runs on" }).waitFor(PATIENCE);
    },
    /** Fills in fields of the request, by their names. */
    fill: async (fields) => {
      for (const [name, value] of Object.entries(fields)) await setField(name, value);
    },
    complete: () => page.locator("#run").click(),
    status: (text) => page.locator("#status", { hasText: text }).waitFor(PATIENCE),
    tokens: () => page.locator(".choices .token"),
    /** Waits until there is so much text. */
    written: (nTokens) => page.locator(".choices .token").nth(nTokens - 1).waitFor(PATIENCE),
    close: () => page.context().close(),
  };
}

function observations(page) {
  return {
    /** The texts of the choices, without the prompt. */
    texts: () => page.locator(".choices .tokens").allTextContents(),
    field: (name) => page.locator(`#field-${name}`),
    /** The page fits a screen of this width, whatever it shows. */
    fits: async (viewport, state) => {
      await page.setViewportSize(viewport);
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= viewport.width, `${state}: ${width} pixels wide on a screen of ${viewport.width}`);
    },
    /** axe-core finds nothing, in light and in dark colours. */
    isAccessible: async (state) => {
      if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
        const places = (nodes) => nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`);
        const found = violations.map(({ id, help, nodes }) => [`${id}: ${help}`, ...places(nodes)]);
        assert.deepEqual(found, [], `${state}, ${colorScheme}`);
      }
      await page.emulateMedia({ colorScheme: null });
    },
  };
}
