// The life of the engine.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { countHosts, overlay, pressShortcut, setSettings, shows, stopBackground, suggestion } from "./driver.mjs";
import { browser, LINE, open, openFields, server, suggestIn, useReal, useTiny } from "./stage.mjs";
import { until } from "./until.mjs";

export function engineTests() {
  describe("the engine", () => {
    test("is one for two tabs, and reads its model once", async () => {
      await setSettings(browser, { model: { id: "other", url: `${server.url}/other.gguf` } });
      await openFields((one) =>
        openFields(async (two) => {
          await suggestIn(one, "input");
          await suggestIn(two, "input");
          assert.equal(await countHosts(browser), 1);
          assert.equal(server.requests.filter(({ path }) => path === "/other.gguf").length, 1);
        }),
      );
      await useTiny();
    });

    test("gives its memory back when idle, and the next use starts it again", async () => {
      await openFields(async (page) => {
        await setSettings(browser, { idleMinutes: 1 / 60 });
        await suggestIn(page, "input");
        await until("the host to close", async () => (await countHosts(browser)) === 0);
        assert.match(await browser.control.evaluate(() => chrome.action.getTitle({})), /asleep/);
        await useTiny();
        await page.fill("#textarea", "");
        assert.ok((await suggestIn(page, "textarea")).text.startsWith(LINE));
        assert.equal(await countHosts(browser), 1);
      });
    });

    test("with the real model: grey text streams on when the background stops, and from where it was when the host goes", async () => {
      await useReal();
      await setSettings(browser, { maxTokens: 120 });
      try {
        await open(`${server.url}/letter.html`, async (page) => {
          await page.click("#note");
          await page.keyboard.type("Once upon a time, in a small village by the sea, there lived");
          await pressShortcut(browser, page);
          await shows(page, /^ \w+ \w/);
          await stopBackground(browser);
          const { text: early } = await overlay(page);
          await browser.control.evaluate(() => chrome.offscreen.closeDocument());
          const { text } = await suggestion(page);
          assert.ok(text.startsWith(early) && text.length > early.length, JSON.stringify({ early, text }));
        });
      } finally {
        await useTiny();
      }
    });
  });
}
