/**
 * The background: hears the shortcut and the toolbar button, sees to it that the engine's host is there, and shows what it does. It may be
 * stopped by the browser whenever it has nothing to do, so it keeps nothing and no stream passes through it.
 */
import { platform } from "#platform";
import { syncBridges } from "./bridges.js";
import { matchKey, readClients, removeClients } from "./clients.js";
import { failure, INVALID_KEY, messageOf, MISSING_KEY } from "./errors.js";
import type { Answer, BackgroundMessage, Behaviour, Config, ExternalMessage } from "./messages.js";
import type { HostLink } from "./platform.js";
import { readSettings } from "./settings.js";
import { showProblem, showState } from "./toolbar.js";

const readConfig = async (): Promise<Config> => ({ settings: await readSettings(), clients: await readClients() });

/** For a host in this context. One elsewhere sends messages. */
const link: HostLink = { config: readConfig, report: showState, leave: () => undefined };

/** What went wrong where no page or panel waits for an answer. */
function reported(work: Promise<unknown>): void {
  work.catch((error: unknown) => {
    console.error("cinderlm:", error);
    return showProblem(messageOf(error));
  });
}

/** Has the focused field of a tab ask for a suggestion. What is injected first sets itself up, and later only asks. */
async function askIn(tab: chrome.tabs.Tab): Promise<void> {
  if (tab.id === undefined) return;
  try {
    await chrome.scripting.executeScript({ target: { tabId: tab.id, allFrames: true }, files: ["content.js"] });
  } catch (error) {
    // The browser's own pages and its store let no extension in.
    await showProblem(`cinderlm cannot work in this page: ${messageOf(error)}`, tab.id);
  }
}

chrome.commands.onCommand.addListener((command, tab) => {
  if (command === "complete" && tab !== undefined) reported(askIn(tab));
});

chrome.action.onClicked.addListener((tab) => {
  // First, for the browser opens a panel in the click itself only.
  reported(platform.openPanel(tab));
  reported(askIn(tab));
});

chrome.runtime.onMessage.addListener((message: BackgroundMessage, sender, respond: (answer: Answer | Behaviour | Config) => void) => {
  if (sender.id !== chrome.runtime.id) return undefined;
  // Scripts in pages may wake the host and ask how to behave; the rest is for the extension's own pages.
  const isOwnPage = sender.url?.startsWith(chrome.runtime.getURL("")) === true;
  switch (message.type) {
    case "wake":
      wake().then(respond, (error: unknown) => respond({ ok: false, error: failure("internal", messageOf(error)) }));
      return true;
    case "behaviour":
      reported(readSettings().then(({ trigger }) => respond({ trigger })));
      return true;
    case "config":
      if (isOwnPage) reported(readConfig().then(respond));
      return isOwnPage;
    case "state":
      if (isOwnPage) reported(showState(message.state));
      return undefined;
    default:
      return undefined; // For another part of the extension.
  }
});

async function wake(): Promise<Answer> {
  await platform.ensureHost(link);
  return { ok: true };
}

chrome.runtime.onMessageExternal.addListener((message: unknown, sender, respond: (answer: Answer) => void) => {
  wakeFor(message, sender).then(respond, (error: unknown) => respond({ ok: false, error: failure("internal", messageOf(error)) }));
  return true;
});

/** Wakes the host for another extension. One without a key wakes nothing; the host looks at the key again. */
async function wakeFor(message: unknown, { id }: chrome.runtime.MessageSender): Promise<Answer> {
  const { type, key } = (typeof message === "object" && message !== null ? message : {}) as Partial<Record<keyof ExternalMessage, unknown>>;
  if (type !== "cinderlm.wake") return { ok: false, error: failure("invalid_type", "Expected a message of the type `cinderlm.wake`.") };
  if (key === undefined) return { ok: false, error: MISSING_KEY };
  if (id === undefined || typeof key !== "string") return { ok: false, error: INVALID_KEY };
  const client = await matchKey(await readClients(), { kind: "extension", who: id }, key);
  return client === undefined ? { ok: false, error: INVALID_KEY } : wake();
}

chrome.storage.local.onChanged.addListener((changes) => {
  if ("clients" in changes) reported(syncBridges());
  reported(platform.tellConfigChanged());
});

// Whoever takes a permission away in the browser's own settings means the keys too.
chrome.permissions.onRemoved.addListener(({ origins = [] }) => {
  reported(removeClients(({ kind, who }) => kind === "page" && origins.includes(platform.pagePattern(who))));
});

chrome.runtime.onInstalled.addListener(() => {
  reported(platform.protectStorage());
  reported(syncBridges());
  reported(showState({ phase: "asleep" }));
});
chrome.runtime.onStartup.addListener(() => reported(showState({ phase: "asleep" })));
