// Suggestions in text fields.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { background, overlay, pressShortcut, setSettings, shows, showsNothing, suggestion } from "./driver.mjs";
import { browser, contentOf, LINE, open, openFields, POEM, START, strict, suggestIn, useTiny } from "./stage.mjs";
import { until } from "./until.mjs";

export function fieldTests() {
  describe("in text fields", () => {
    for (const id of ["textarea", "input", "editable", "react"]) {
      test(`${id}: grey text is taken with Tab, the page hears of it, and it can be undone`, () =>
        openFields(async (page) => {
          const { text, isCard } = await suggestIn(page, id);
          assert.ok(POEM.startsWith(`A cinder slept${text}`) && text.startsWith(LINE), text);
          assert.equal(isCard, false);
          assert.equal(await contentOf(page, id), START, "nothing is written before it is taken");
          await page.evaluate(() => (globalThis.heard.length = 0));
          await page.keyboard.press("Tab");
          assert.equal(await contentOf(page, id), START + text);
          assert.deepEqual(await page.evaluate(() => globalThis.heard[0]), { type: "insertText", trusted: true });
          assert.equal(await page.evaluate((id) => document.activeElement.id === id, id), true);
          assert.equal(await overlay(page), undefined);
          if (id === "react") assert.equal(await page.textContent("output"), START + text);
          await page.keyboard.press("Control+z");
          assert.ok((await contentOf(page, id)).length < (START + text).length);
        }));
    }

    test("a word is taken with Ctrl+Right, and the rest is dropped with Escape", () =>
      openFields(async (page) => {
        const { text } = await suggestIn(page, "input");
        assert.equal(text, LINE);
        await page.keyboard.press("Control+ArrowRight");
        assert.equal(await contentOf(page, "input"), `${START} beside`);
        await shows(page, /^ the grate,$/);
        await page.keyboard.press("Control+ArrowRight");
        await shows(page, /^ grate,$/);
        await page.keyboard.press("Escape");
        await showsNothing(page);
        assert.equal(await contentOf(page, "input"), `${START} beside the`);
        await page.keyboard.press("Tab");
        assert.equal(await page.evaluate(() => document.activeElement.id), "editable", "Tab is the page's again");
      }));

    test("typing what is suggested keeps the rest, other typing asks anew", () =>
      openFields(async (page) => {
        await suggestIn(page, "textarea");
        await page.keyboard.type(" bes");
        assert.ok((await shows(page, /^ide the grate,/)).isWhole, "it was not asked for again");
        await page.keyboard.type("?");
        await showsNothing(page);
        await page.keyboard.press("Backspace");
        await shows(page, /./);
        assert.equal(await contentOf(page, "textarea"), `${START} bes`);
      }));

    test("a space that is there is not suggested again", () =>
      openFields(async (page) => {
        assert.equal((await suggestIn(page, "input", `${START} `)).text, LINE.trim());
      }));

    test("in the middle of a line it is shown on a card, and in a modal dialog above it", () =>
      openFields(async (page) => {
        await page.click("#input");
        await page.keyboard.type(`${START}.`);
        await page.keyboard.press("ArrowLeft");
        await pressShortcut(browser, page);
        assert.equal((await suggestion(page)).isCard, true);
        await page.keyboard.press("Tab");
        assert.equal(await contentOf(page, "input"), `${START}${LINE}.`);
        await page.evaluate(() => document.getElementById("dialog").showModal());
        const { text } = await suggestIn(page, "modal");
        assert.ok(text.startsWith(LINE), text);
      }));

    test("it goes with the focus, the caret, and the field", () =>
      openFields(async (page) => {
        const leave = {
          blur: () => page.click("#input"),
          caret: () => page.keyboard.press("Home"),
          removal: () => page.evaluate(() => document.getElementById("textarea").remove()),
        };
        for (const run of Object.values(leave)) {
          await page.fill("#textarea", "");
          await suggestIn(page, "textarea");
          await run();
          await showsNothing(page);
        }
      }));

    test("events that a page makes up do nothing", () =>
      openFields(async (page) => {
        const { text } = await suggestIn(page, "textarea");
        await page.evaluate(() => {
          const field = document.getElementById("textarea");
          for (const key of ["Tab", "Escape"]) field.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
          field.dispatchEvent(new InputEvent("input", { bubbles: true }));
        });
        assert.equal((await overlay(page)).text, text);
        assert.equal(await contentOf(page, "textarea"), START);
      }));

    test("what is secret is left alone", () =>
      openFields(async (page) => {
        const worker = await background(browser);
        for (const id of ["password", "code", "card", "readonly"]) {
          await page.click(`#${id}`);
          if (id !== "readonly") await page.keyboard.type("A cinder slept");
          await pressShortcut(browser, page);
          // The script that was injected has run when another, injected after it, has.
          await worker.evaluate(async () => {
            const [tab] = await chrome.tabs.query({ active: true, url: "http://localhost/*" });
            const func = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
            await chrome.scripting.executeScript({ target: { tabId: tab.id }, func });
          });
          assert.equal(await overlay(page), undefined, id);
        }
        // The same page is helped where it may be.
        assert.ok((await suggestIn(page, "textarea")).text.startsWith(LINE));
      }));

    test("a page with the strictest policy breaks nothing, and the grey text stands behind the caret", () =>
      open(`${strict.url}/strict.html`, async (page) => {
        for (const id of ["textarea", "editable"]) {
          const { text, box } = await suggestIn(page, id);
          assert.ok(text.startsWith(LINE), text);
          const [left, top, right] = box;
          const field = await page.locator(`#${id}`).boundingBox();
          assert.ok(left > field.x + 150 && right > left && Math.abs(top - field.y) < 12, JSON.stringify({ id, box, field }));
          await page.keyboard.press("Tab");
          assert.ok((await contentOf(page, id)).startsWith(START + LINE));
        }
      }));

    test("with pauses as the trigger, it comes by itself where the extension was called once", async () => {
      await setSettings(browser, { trigger: "pause" });
      try {
        await openFields(async (page) => {
          await suggestIn(page, "textarea");
          await page.keyboard.press("Escape");
          await page.click("#input");
          await page.keyboard.type(START);
          assert.equal((await suggestion(page)).text, LINE);
        });
      } finally {
        await useTiny();
      }
    });

    test("without a model it says what to do, beside the caret and on the toolbar", async () => {
      await setSettings(browser, { model: null });
      try {
        await openFields(async (page) => {
          await page.click("#textarea");
          await page.keyboard.type(START);
          await pressShortcut(browser, page);
          await shows(page, /No model is chosen yet/);
          await until("the badge", () => browser.control.evaluate(async () => (await chrome.action.getBadgeText({})) === "!"));
          assert.match(await browser.control.evaluate(() => chrome.action.getTitle({})), /No model is chosen yet/);
        });
      } finally {
        await useTiny();
      }
    });
  });
}
