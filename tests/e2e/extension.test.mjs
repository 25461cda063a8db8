// The browser extension in Chromium: suggestions in text fields, calls of pages and other extensions, the life of the engine, and the panel.
// What is loaded, and how it differs from what ships, is told in extension/load.mjs.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { callTests } from "./extension/calls.mjs";
import { pressShortcut, setSettings, suggestion } from "./extension/driver.mjs";
import { engineTests } from "./extension/engine.mjs";
import { fieldTests } from "./extension/fields.mjs";
import { dist, distFirefox } from "./extension/load.mjs";
import { panelTests } from "./extension/panel.mjs";
import { begin, browser, end, open, server, useReal, useTiny, withPanel } from "./extension/stage.mjs";
import { realModel } from "./models.mjs";
import { takeScreenshot } from "./screenshots.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));

before(begin);
after(end);

describe("what ships", () => {
  test("asks for the least: no host before the user allows one", () => {
    const manifest = JSON.parse(readFileSync(`${dist}/manifest.json`, "utf8"));
    assert.deepEqual(manifest.permissions, ["activeTab", "scripting", "storage", "offscreen", "sidePanel"]);
    assert.deepEqual([manifest.host_permissions, manifest.content_scripts, manifest.web_accessible_resources], [undefined, undefined, undefined]);
    assert.deepEqual(manifest.externally_connectable, { ids: ["*"] });
  });

  test("web-ext finds nothing in what Firefox gets", async () => {
    const lint = ["--no-install", "web-ext", "lint", "--source-dir", distFirefox, "--output", "json", "--no-config-discovery"];
    const { stdout } = await promisify(execFile)("npx", lint, { cwd: root });
    const { errors, warnings, notices } = JSON.parse(stdout);
    assert.deepEqual({ errors, warnings, notices }, { errors: [], warnings: [], notices: [] });
  });
});

fieldTests();
callTests();
engineTests();
panelTests();

describe("pictures", () => {
  before(useReal);
  after(useTiny);

  test("of grey text in a note", () =>
    open(`${server.url}/letter.html`, async (page) => {
      await page.setViewportSize({ width: 900, height: 560 });
      await page.click("#note");
      await page.keyboard.type("We walked along the river until the lamps were lit. The snow had begun to fall again, and the");
      await setSettings(browser, { maxTokens: 24 });
      await pressShortcut(browser, page);
      const { isCard } = await suggestion(page);
      assert.equal(isCard, false);
      await takeScreenshot(page, "extension-ghost-text");
    }));

  test("of the panel", () =>
    withPanel(async (panel) => {
      await panel.setInputFiles("#file", realModel());
      await panel.locator("#models .choice:has(:checked)", { hasText: "picked from this computer" }).waitFor();
      await panel.click("#load");
      const loaded = panel.locator(".engine", { hasText: basename(realModel()) }).filter({ hasText: "Runs on" });
      await loaded.waitFor();
      await panel.mouse.move(0, 0);
      await takeScreenshot(panel, "extension-panel");
    }));
});
