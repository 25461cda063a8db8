// The demo page as visitors use it, in Chromium, under its own content-security policy.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch } from "./browsers.mjs";
import { openSite } from "./demo/site.mjs";
import { arrive, DESKTOP, NARROW, REAL_MODEL, TINY_MODEL } from "./demo/visitor.mjs";
import { tinyModel } from "./models.mjs";
import { takeScreenshot } from "./screenshots.mjs";

const POEM = JSON.parse(readFileSync(tinyModel().replace(/gguf$/, "json"), "utf8")).greedy[0].text;
const START = "A cinder slept";
/** The vocabulary of the tiny model has no document start of its own, so the prompt brings it. */
const POEM_REQUEST = { prompt: `<|endoftext|>${START}`, temperature: "0", max_tokens: "24" };
const STORY_REQUEST = { prompt: "Once upon a time, in a village at the foot of a volcano,", seed: "7", max_tokens: "60" };

let browser;
let site;
let visitor;
before(async () => {
  execFileSync(process.execPath, ["build.mjs"], { cwd: fileURLToPath(new URL("../../www/demo", import.meta.url)), stdio: "inherit" });
  browser = await launch("chromium");
});
after(() => browser?.close());
beforeEach(async () => {
  site = await openSite();
  visitor = await arrive(browser);
});
afterEach(async () => {
  await visitor.close();
  await site.close();
});

const tinyPage = () => `${site.url}?model=${TINY_MODEL}`;
const realPage = () => `${site.url}?model=${REAL_MODEL}`;
const isPoem = (text) => assert.ok(text.length > 10 && POEM.startsWith(START + text), JSON.stringify(text));
const requestsFor = (path) => site.requests.filter((request) => request.path === path);

test("a first visit: the model is downloaded when it is asked for, and the text comes in coloured tokens", async () => {
  const { page, errors, open, fill, complete, status, texts, tokens } = visitor;
  await open(tinyPage());
  await fill(POEM_REQUEST);
  assert.equal(requestsFor(TINY_MODEL).length, 0, "nothing is downloaded before it is asked for");
  await complete();
  await status("Done");
  const [text] = await texts();
  isPoem(text);
  assert.equal(await tokens().count(), 24);
  assert.ok((await page.locator(".choices .token[data-heat='0']").count()) > 10, "a model that knows the poem is sure of it");
  const figures = await page.locator("#stats").innerText();
  const speeds = [/Tokens per second\s+\d+\.\d/, /To the first token\s+\d/, /In all\s+\d/];
  const expected = [...speeds, /Prompt tokens\s+6/, /Completion tokens\s+24/, /Memory\s+\d+(\.\d+)? MB/];
  for (const figure of expected) assert.match(figures, figure);
  assert.match(await page.locator("#device").innerText(), /The model runs on the CPU: the only WebGPU adapter is a software one/);
  assert.deepEqual(errors, []);
});

test("the alternatives of a token, with the pointer and with the keyboard", async () => {
  const { page, errors, open, fill, complete, status, tokens } = visitor;
  await open(tinyPage());
  await fill(POEM_REQUEST);
  await complete();
  await status("Done");
  const popover = page.locator("#alternatives");
  await tokens().nth(3).hover();
  await popover.waitFor();
  await page.mouse.move(2, 2);
  await popover.waitFor({ state: "hidden" });

  await tokens().first().focus();
  assert.equal(await tokens().first().getAttribute("aria-describedby"), "alternatives", "screen readers are told of them");
  assert.equal(await popover.locator("li").count(), 5);
  const chosen = await popover.locator("li.chosen").innerText();
  const first = await tokens().first().innerText();
  assert.ok(chosen.startsWith(`${first.replace(" ", "·")} (chosen)`), chosen);
  assert.match(chosen, /\d+(\.\d+)? %/);
  const focused = () => page.evaluate(() => [...document.querySelectorAll(".choices .token")].indexOf(document.activeElement));
  for (const [key, expected] of [["ArrowRight", 1], ["ArrowRight", 2], ["ArrowLeft", 1], ["End", 23], ["ArrowRight", 23], ["Home", 0]]) {
    await page.keyboard.press(key);
    assert.equal(await focused(), expected, key);
  }
  await page.keyboard.press("ArrowDown");
  assert.ok((await focused()) > 0, "the next line is a step down");
  assert.equal(await page.locator(".choices .token[tabindex='0']").count(), 1, "one token is in the tab order");
  await page.keyboard.press("Escape");
  await popover.waitFor({ state: "hidden" });
  assert.deepEqual(errors, []);
});

test("a refusal is shown at the control that it names, and costs no download", async () => {
  const { page, errors, open, fill, complete, status, field } = visitor;
  await open(tinyPage());
  const cases = [
    ["temperature", { temperature: "3" }, /`temperature` must be a number from 0 to 2, but is 3/],
    ["top_p", { temperature: "", top_p: "much" }, /`top_p` must be a number from 0 to 1, but is the string "much"/],
    ["best_of", { top_p: "", best_of: "4" }, /`best_of` conflicts .* with `stream` it cannot be greater than `n`/],
    ["stop", { best_of: "", stop: "a\n\nb" }, /`stop\[1\]` must be a string of at least one character/],
    ["logit_bias", { stop: "", logit_bias: "one: 1" }, /`logit_bias\.one` must be a decimal token id/],
  ];
  for (const [name, fields, message] of cases) {
    await fill(fields);
    await complete();
    await status("Failed");
    assert.match(await page.locator(`#field-${name}-fault`).innerText(), message);
    assert.equal(await field(name).getAttribute("aria-invalid"), "true");
    assert.equal(await page.evaluate(() => document.activeElement.id), `field-${name}`);
    assert.match(await page.locator("#problem").innerText(), /Code: (out_of_range|invalid_type|conflicting_parameters)/);
  }
  await fill({ logit_bias: "" });
  assert.ok(await page.locator("#field-logit_bias-fault").isHidden(), "a change takes the refusal back");
  assert.equal(requestsFor(TINY_MODEL).length, 0);
  assert.deepEqual(errors, []);
});

test("Escape stops the model, and the text so far stays", async () => {
  const { page, errors, open, fill, complete, status, written, texts } = visitor;
  await open(realPage());
  await fill({ ...STORY_REQUEST, max_tokens: "2000" });
  await complete();
  await written(5);
  await page.keyboard.press("Escape");
  await status("Stopped");
  const [text] = await texts();
  assert.ok(text.length > 5, text);
  assert.match(await page.locator("#stats").innerText(), /Completion tokens\s+\d+/);
  await page.locator("#stop").waitFor({ state: "hidden" });
  assert.deepEqual(await texts(), [text], "nothing comes after the stop");
  assert.deepEqual(errors, []);
});

test("three choices stand side by side, and best_of says what was kept", async () => {
  const { page, errors, open, fill, complete, status, texts } = visitor;
  await open(tinyPage());
  await fill({ ...POEM_REQUEST, temperature: "2", seed: "1", n: "3" });
  await complete();
  await status("Done");
  const boxes = await page.locator(".choice").evaluateAll((choices) => choices.map((choice) => choice.getBoundingClientRect().toJSON()));
  assert.equal(boxes.length, 3);
  assert.ok(boxes[0].top === boxes[1].top && boxes[1].top === boxes[2].top, JSON.stringify(boxes));
  assert.ok(boxes[0].right <= boxes[1].left && boxes[1].right <= boxes[2].left, JSON.stringify(boxes));
  assert.equal(new Set(await texts()).size, 3, "the choices differ");

  await fill({ n: "2", best_of: "4", stream: false });
  await complete();
  await status("Done");
  assert.equal((await texts()).length, 2);
  assert.equal(await page.locator("#choices-note").innerText(), "Of 4 texts for each prompt, the 2 likeliest are kept.");
  assert.deepEqual(errors, []);
});

test("several prompts, as texts and as token ids, and echo", async () => {
  const { page, errors, open, fill, complete, status, texts } = visitor;
  await open(tinyPage());
  await fill({ ...POEM_REQUEST, prompt: `${POEM_REQUEST.prompt}\n<|endoftext|>A cinder`, prompt_kind: "lines", max_tokens: "8" });
  await complete();
  await status("Done");
  assert.deepEqual(await page.locator(".choice h3").allTextContents(), ["Prompt 1", "Prompt 2"]);
  isPoem((await texts())[0]);
  assert.ok(POEM.startsWith(`A cinder${(await texts())[1]}`));

  await fill({ prompt: "0, 35, 292, 282, 264, 315", prompt_kind: "ids", echo: true });
  await complete();
  await status("Done");
  const [text] = await texts();
  assert.ok(text.includes(`${START} beside`), text);
  assert.deepEqual(errors, []);
});

test("a link restores the form and the model, in the fragment only", async () => {
  const { page, errors, open, fill } = visitor;
  await open(tinyPage());
  const fields = { prompt: "Ümläute & = #\n“two lines”", max_tokens: "9", seed: "9223372036854775807", stop: "\\n", user: "Zoë" };
  await fill({ ...fields, echo: true });
  await page.locator("#share").click();
  await page.locator("#status", { hasText: "Link copied" }).waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.equal(new URL(link).search, "");
  assert.equal(link, page.url());

  const other = await arrive(browser);
  try {
    await other.open(link);
    for (const [name, value] of Object.entries(fields)) assert.equal(await other.field(name).inputValue(), value, name);
    assert.ok(await other.field("echo").isChecked());
    assert.equal(await other.page.locator("#model-name").innerText(), "tiny");
    assert.deepEqual(other.errors, []);
  } finally {
    await other.close();
  }
  assert.equal(requestsFor(TINY_MODEL).length, 0, "opening a link downloads no model");
  await page.goto(`${site.url}#prompt=%E0%A4%A&echo=yes&prompt_kind=evil&__proto__=x&model=javascript:alert(1)`);
  await page.locator("#device-chip", { hasText: "Runs on" }).waitFor();
  assert.equal(await visitor.field("prompt_kind").inputValue(), "text");
  assert.deepEqual(errors, []);
});

test("the page and the model are there without a network", async () => {
  const { page, errors, open, fill, complete, status, texts } = visitor;
  await open(tinyPage());
  await fill(POEM_REQUEST);
  await complete();
  await status("Done");
  const online = await texts();
  await page.locator("#offline", { hasText: "opens without a network" }).waitFor();
  await page.locator("#storage", { hasText: "tiny.gguf" }).waitFor();
  await site.close();
  await page.context().setOffline(true);
  await page.reload();
  await page.locator("#device-chip", { hasText: "Runs on" }).waitFor();
  await page.locator("#model-meta", { hasText: "on this device" }).waitFor();
  await fill(POEM_REQUEST);
  await complete();
  await status("Done");
  assert.deepEqual(await texts(), online);
  assert.deepEqual(errors, []);
});

test("a download that fails says why, and works when it is tried again", async () => {
  const { page, open, fill, complete, status, texts } = visitor;
  site.refuse(TINY_MODEL, 404);
  await open(tinyPage());
  await fill(POEM_REQUEST);
  await complete();
  await status("Failed");
  const problem = await page.locator("#problem").innerText();
  assert.match(problem, /answered 404/);
  assert.match(problem, /Code: download_failed/);
  site.allow(TINY_MODEL);
  await page.getByRole("button", { name: "Try again" }).click();
  await status("Done");
  isPoem((await texts())[0]);
  assert.equal(await page.locator("#problem").innerText(), "");
});

test("a download can be cancelled, goes on where it was, and its file can be deleted", async () => {
  const { page, errors, open } = visitor;
  const bytes = 24_000_000;
  site.withhold(REAL_MODEL, bytes);
  await open(realPage());
  await page.locator("#model-load").click();
  await page.locator("#progress-figures", { hasText: /2\d MB of 98 MB/ }).waitFor();
  assert.match(await page.locator("#activity").innerText(), /Downloading SmolLM2-135M[^]*kept: after a stop the download goes on from there/);
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.locator("#activity").waitFor({ state: "hidden" });
  await page.locator("#storage", { hasText: /of 98 MB, goes on when it is next loaded/ }).waitFor();
  site.allow(REAL_MODEL);
  await page.locator("#model-load").click();
  await page.locator("#model-meta", { hasText: "In memory" }).waitFor({ timeout: 120_000 });
  const { from } = requestsFor(REAL_MODEL).at(-1);
  assert.ok(from > 0 && from <= bytes, `went on at ${from}`);

  await page.getByRole("button", { name: /^Delete SmolLM2/ }).click();
  await page.locator("#storage", { hasText: "No model is stored yet" }).waitFor();
  assert.deepEqual(errors, []);
});

test("a file of the visitor's, picked or dropped, and an address typed in", async () => {
  const { page, errors, open, fill, complete, status, texts } = visitor;
  await open(site.url);
  assert.equal(await page.locator("#model-name").innerText(), "SmolLM2 135M");
  await page.locator("#model-change").click();
  await page.locator("#model-file").setInputFiles(tinyModel());
  await page.locator("#model-name", { hasText: "tiny-llama" }).waitFor();
  await fill(POEM_REQUEST);
  await complete();
  await status("Done");
  isPoem((await texts())[0]);
  assert.match(await page.locator("#snippet").innerText(), /models: \[\{ id: "tiny-llama", file \}\]/);

  await page.locator("#model-change").click();
  await page.locator("#model-address").fill("ftp://somewhere/model.gguf");
  await page.keyboard.press("Enter");
  assert.match(await page.locator("#model-address-fault").innerText(), /starts with https: or hf:/);
  await page.locator("#model-address").fill(TINY_MODEL);
  await page.keyboard.press("Enter");
  await page.locator("#model-name", { hasText: /^tiny$/ }).waitFor();
  await complete();
  await status("Done");
  isPoem((await texts())[0]);
  assert.equal(requestsFor(TINY_MODEL).length, 1);

  await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File(["no model"], "dropped.gguf"));
    dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
  });
  await page.locator("#model-name", { hasText: "dropped" }).waitFor();
  await complete();
  await status("Failed");
  assert.match(await page.locator("#problem").innerText(), /Code: corrupt_model/);
  assert.deepEqual(errors, []);
});

test("the device is chosen, and the page says why", async () => {
  const { page, errors, open, fill, complete, status, texts } = visitor;
  await open(tinyPage());
  await page.getByRole("radio", { name: "WebGPU" }).check();
  await page.locator("#device", { hasText: /runs on the GPU \(.*\): WebGPU was asked for/ }).waitFor();
  await page.getByRole("radio", { name: "CPU" }).check();
  await page.locator("#device", { hasText: "runs on the CPU: the CPU was asked for" }).waitFor();
  await fill(POEM_REQUEST);
  await complete();
  await status("Done");
  isPoem((await texts())[0]);
  assert.deepEqual(errors, []);
});

test("with the keyboard alone", async () => {
  const { page, errors, open, status, texts } = visitor;
  await open(tinyPage());
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the prompt");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "field-prompt");
  await page.keyboard.press("Control+A");
  await page.keyboard.type(POEM_REQUEST.prompt);
  await tabTo(page, ({ id }) => id === "field-max_tokens");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("24");
  await tabTo(page, ({ id }) => id === "field-temperature");
  await page.keyboard.type("0");
  await page.keyboard.press("Control+Enter");
  await status("Done");
  isPoem((await texts())[0]);
  await tabTo(page, (element) => element.getAttribute("role") === "option");
  await page.keyboard.press("ArrowRight");
  await page.locator("#alternatives").waitFor();
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement.querySelector(".ink")).outlineStyle);
  assert.equal(outline, "solid", "what has the focus shows it");
  assert.deepEqual(errors, []);
});

/** Presses Tab until an element that fits has the focus. */
async function tabTo(page, wanted) {
  const maxStops = 40;
  for (let i = 0; i < maxStops; i++) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluateHandle(() => document.activeElement);
    if (await focused.evaluate(wanted)) return;
  }
  assert.fail(`not reached within ${maxStops} stops of Tab: ${wanted}`);
}

test("colours follow the system until the visitor chooses, and the choice stays", async () => {
  const { page, errors, open } = visitor;
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  await page.emulateMedia({ colorScheme: "dark" });
  await open(site.url);
  const dark = await ground();
  await page.locator("#theme-toggle").click();
  const light = await ground();
  assert.notEqual(light, dark);
  await page.reload();
  assert.equal(await ground(), light);
  assert.equal(await page.locator("#theme-toggle").innerText(), "Colours: light");
  assert.deepEqual(errors, []);
});

test("a new version is offered, and takes over with a reload", async () => {
  const { page, errors, open } = visitor;
  await open(tinyPage());
  await page.locator("#offline", { hasText: "opens without a network" }).waitFor();
  const versions = () => page.evaluate(async () => (await caches.keys()).filter((name) => name.startsWith("cinderlm-demo ")));
  const [first] = await versions();
  const worker = await (await fetch(`${site.url}sw.js`)).text();
  site.replace("/some/path/sw.js", worker.replaceAll(first.split(" ").at(-1), "another"));
  await page.reload();
  await page.locator("#update", { hasText: "There is a new version" }).waitFor();
  await Promise.all([page.waitForEvent("load"), page.getByRole("button", { name: "Reload" }).click()]);
  await page.locator("#device-chip", { hasText: "Runs on" }).waitFor();
  await page.waitForFunction(async () => (await caches.keys()).join() === "cinderlm-demo /some/path/ another");
  assert.ok(await page.locator("#update").isHidden());
  assert.deepEqual(errors, []);
});

test("every state is accessible in light and dark, fits a narrow screen, and has its picture", async () => {
  const { page, errors, open, fill, complete, status, written, tokens, isAccessible, fits } = visitor;
  const check = async (state, picture) => {
    await page.setViewportSize(DESKTOP);
    await page.evaluate(() => scrollTo(0, 0));
    if (picture !== undefined) await takeScreenshot(page, picture);
    await isAccessible(state);
    await fits(NARROW, state);
    await isAccessible(`${state}, narrow`);
    await page.setViewportSize(DESKTOP);
  };
  await open(site.url);
  await check("empty", "demo-empty");
  await page.locator("#model-change").click();
  await page.locator("#more > summary").click();
  await check("choosing a model, all fields");

  site.refuse(REAL_MODEL, 404);
  await open(realPage());
  await fill(STORY_REQUEST);
  await page.locator("#more > summary").click();
  await complete();
  await status("Failed");
  await check("error", "demo-error");

  site.allow(REAL_MODEL);
  site.withhold(REAL_MODEL, 60_000_000);
  await complete();
  await page.locator("#progress-figures", { hasText: /[56]\d MB of 98 MB · .*left/ }).waitFor({ timeout: 60_000 });
  await check("loading", "demo-loading");

  site.allow(REAL_MODEL);
  await written(1);
  await page.keyboard.press("Escape");
  await status("Stopped");
  await fill({ max_tokens: "1000", n: "2" });
  await page.locator("#more > summary").click();
  await complete();
  await written(70);
  await check("streaming", "demo-streaming");
  await page.keyboard.press("Escape");
  await status("Stopped");

  await fill({ ...STORY_REQUEST, n: "" });
  await page.locator("#more > summary").click();
  await complete();
  await status("Done");
  await check("done");
  await tokens().nth(4).focus();
  await page.locator("#alternatives").waitFor();
  await check("alternatives", "demo-alternatives");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.locator("#output").scrollIntoViewIfNeeded();
  await tokens().nth(4).focus();
  await takeScreenshot(page, "demo-phone");
  await page.setViewportSize(DESKTOP);
  await page.emulateMedia({ colorScheme: "dark" });
  await page.evaluate(() => scrollTo(0, 0));
  await takeScreenshot(page, "demo-dark");
  // Chromium logs the answer that the error was about.
  assert.deepEqual(errors.filter((error) => !error.includes("404")), []);
});
