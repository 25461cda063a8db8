// The panel, as a user works it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { tinyModel } from "../models.mjs";
import { setSettings } from "./driver.mjs";
import { browser, LINE, openFields, restart, server, suggestIn, useTiny, withPanel } from "./stage.mjs";
import { until } from "./until.mjs";

export function panelTests() {
  describe("the panel", () => {
    const axe = readFileSync(fileURLToPath(import.meta.resolve("axe-core/axe.min.js")), "utf8");

    for (const colorScheme of ["light", "dark"]) {
      test(`is accessible, with a new key and kept files to show, in ${colorScheme}`, () =>
        withPanel(
          async (panel) => {
            await panel.fill("#who", "a".repeat(32));
            await panel.click("#access-form button");
            await panel.waitForSelector("#new-key code");
            await panel.click("#load:visible, #sleep:visible");
            await panel.evaluate(axe);
            const { violations } = await panel.evaluate(() => globalThis.axe.run());
            assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), []);
            await panel.click('[aria-label^="Revoke"]');
            await panel.waitForFunction(() => document.querySelectorAll("#clients li").length === 0);
          },
          { colorScheme },
        ));
    }

    test("stores what is chosen, and says what is wrong with an address", () =>
      withPanel(async (panel) => {
        const stored = () => panel.evaluate(async () => (await chrome.storage.local.get("settings")).settings);
        await panel.selectOption("#trigger", "pause");
        await panel.fill("#max-tokens", "12");
        await panel.keyboard.press("Tab");
        await until("the settings", async () => (await stored()).maxTokens === 12 && (await stored()).trigger === "pause");
        await panel.fill("#address", "nowhere");
        await panel.press("#address", "Enter");
        await panel.waitForSelector("#message:visible");
        assert.match(await panel.textContent("#message"), /"nowhere" is no address of a model/);
        assert.equal((await stored()).model.id, "tiny");
        await panel.fill("#who", "ftp://nowhere");
        await panel.click("#access-form button");
        await panel.waitForFunction(() => /no address of a page/.test(document.getElementById("message").textContent));
        await useTiny();
      }));

    test("lists what was downloaded, and deletes it", () =>
      withPanel(async (panel) => {
        await setSettings(browser, { model: { id: "other", url: `${server.url}/other.gguf` } });
        await panel.click("#load");
        const row = panel.locator("#files li", { hasText: "other.gguf" });
        await row.waitFor();
        // While it is read it cannot be deleted.
        const isReady = () => document.getElementById("state").textContent === "Ready" && /other/.test(document.getElementById("engine-model").textContent);
        await panel.waitForFunction(isReady);
        assert.match(await row.textContent(), /other\.gguf\d+ kB/);
        await row.getByRole("button").click();
        await row.waitFor({ state: "detached" });
        await useTiny();
      }));

    test("keeps a file that was picked beyond a restart of the browser, and deletes it", async () => {
      await withPanel(async (panel) => {
        await panel.setInputFiles("#file", { name: "poem.gguf", mimeType: "application/octet-stream", buffer: readFileSync(tinyModel()) });
        await panel.waitForSelector("#files >> text=poem.gguf");
        await panel.waitForSelector(".choice:has(:checked) >> text=poem.gguf");
      });
      await restart();
      await openFields(async (page) => assert.equal((await suggestIn(page, "input")).text, LINE));
      await withPanel(async (panel) => {
        await panel.waitForFunction(() => /^Runs on the CPU: .+/.test(document.getElementById("engine-detail").textContent));
        assert.equal(await panel.textContent("#engine-model"), "poem.gguf");
        await panel.click('[aria-label="Delete poem.gguf"]');
        await panel.waitForFunction(() => !document.getElementById("files").textContent.includes("poem.gguf"));
        await panel.click("#sleep");
        await panel.waitForFunction(() => document.getElementById("state").textContent === "Asleep");
        await panel.click("#load");
        await panel.waitForFunction(() => /poem.gguf is not kept any more/.test(document.getElementById("message").textContent));
      });
      await useTiny();
    });
  });
}
