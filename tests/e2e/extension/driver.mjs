// What a user does with the extension, and what they see of it.
import { until } from "./until.mjs";

/** The background, woken if the browser has stopped it. */
export async function background({ context, id, control }) {
  await control.evaluate(() => chrome.runtime.sendMessage({ type: "behaviour" }));
  return until("the background", () => context.serviceWorkers().find((each) => each.url() === `chrome-extension://${id}/background.js`));
}

/** Presses the shortcut in a page: fires its event with the page's tab, as the browser would. */
export async function pressShortcut(browser, page) {
  await page.bringToFront();
  const worker = await background(browser);
  await worker.evaluate(async (url) => {
    const tabs = await chrome.tabs.query({ active: true });
    const tab = tabs.find((each) => each.url === url);
    if (tab === undefined) throw new Error(`no active tab shows ${url}: ${JSON.stringify(tabs.map((each) => each.url))}`);
    chrome.commands.onCommand.dispatch("complete", tab);
  }, page.url());
}

/** Stores settings, as the panel does. */
export function setSettings({ control }, settings) {
  return control.evaluate(async (changed) => {
    const { settings: known } = await chrome.storage.local.get("settings");
    await chrome.storage.local.set({ settings: { ...known, ...changed } });
  }, settings);
}

/** How many documents hold the engine. */
export function countHosts({ control }) {
  return control.evaluate(async () => (await chrome.runtime.getContexts({ contextTypes: ["OFFSCREEN_DOCUMENT"] })).length);
}

/** Stops the background, as the browser does when it has been idle. */
export async function stopBackground({ context, id }) {
  const session = await context.browser().newBrowserCDPSession();
  try {
    const running = async () => {
      const { targetInfos } = await session.send("Target.getTargets");
      return targetInfos.find(({ type, url }) => type === "service_worker" && url === `chrome-extension://${id}/background.js`);
    };
    const { targetId } = await running();
    await session.send("Target.closeTarget", { targetId });
    await until("the background to stop", async () => (await running())?.targetId !== targetId);
  } finally {
    await session.detach();
  }
}

/**
 * What the extension shows over a page, or undefined: `{ text, isCard, isWhole, box }`. Its shadow tree is closed to the page; only the
 * browser's debugger sees into it.
 */
export async function overlay(page) {
  const session = await page.context().newCDPSession(page);
  try {
    const { root } = await session.send("DOM.getDocument", { depth: -1, pierce: true });
    const host = find(root, (node) => node.localName === "cinderlm-suggestion");
    if (host === undefined) return undefined;
    const byClass = (name) => find(host.shadowRoots[0], (node) => attribute(node, "class") === name);
    const isCard = attribute(byClass("card"), "hidden") === undefined;
    const ghost = byClass("ghost");
    const key = find(ghost, (node) => attribute(node, "class") === "key");
    const announced = textOf(byClass("unseen"));
    const text = isCard ? textOf(byClass("body")) : (ghost.children ?? []).filter((node) => node !== key).map(textOf).join("");
    const shown = isCard ? byClass("card") : ghost;
    const { quads } = await session.send("DOM.getContentQuads", { nodeId: shown.nodeId }).catch(() => ({ quads: [] })); // Not laid out yet.
    return { text, isCard, isWhole: announced.startsWith("Suggestion: "), box: quads[0] };
  } finally {
    await session.detach();
  }
}

/** Waits until a suggestion is shown whole, and gives it. */
export async function suggestion(page) {
  return until("a whole suggestion", async () => {
    const shown = await overlay(page);
    return shown?.isWhole ? shown : undefined;
  });
}

/** Waits until the overlay shows a text that matches. */
export async function shows(page, pattern) {
  let shown;
  const asked = async () => {
    shown = await overlay(page);
    return shown !== undefined && pattern.test(shown.text) ? shown : undefined;
  };
  return until(() => `the overlay to show ${pattern}, not ${JSON.stringify(shown?.text)}`, asked);
}

/** Waits until nothing is drawn over a page. */
export async function showsNothing(page) {
  await until("the overlay to go", async () => (await overlay(page)) === undefined);
}

function find(node, matches) {
  if (matches(node)) return node;
  for (const child of [...(node.children ?? []), ...(node.shadowRoots ?? [])]) {
    const found = find(child, matches);
    if (found !== undefined) return found;
  }
  return undefined;
}

function attribute({ attributes = [] }, name) {
  const at = attributes.findIndex((each, index) => index % 2 === 0 && each === name);
  return at < 0 ? undefined : attributes[at + 1];
}

function textOf(node) {
  return node.nodeType === 3 ? node.nodeValue : (node.children ?? []).map(textOf).join("");
}
