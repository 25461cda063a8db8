import { pagePattern } from "#platform";
import { addClient, extensionId, makeKey, pageOrigin, readClients, removeClients, type Caller, type Client } from "../clients.js";
import { attempt } from "./attempt.js";
import { byId, make } from "./dom.js";

/** Makes the controls of this section work. */
export function wireAccess(): void {
  byId("access-form", HTMLFormElement).onsubmit = (event) => {
    event.preventDefault();
    attempt(allow);
  };
}

/** Lists who has a key. */
export async function showClients(): Promise<void> {
  const clients = await readClients();
  const rows = clients.map((client) => {
    const { kind, who, createdMillis } = client;
    const since = `${kind === "page" ? "Page" : "Extension"}, since ${new Date(createdMillis).toLocaleDateString()}`;
    const onclick = (): void => attempt(() => revokeKey(client));
    const revoke = make("button", { type: "button", className: "plain", onclick, "aria-label": `Revoke the key of ${who}` }, "Revoke");
    return make("li", {}, make("span", { className: "who" }, who, make("span", { className: "quiet" }, since)), revoke);
  });
  byId("clients", HTMLElement).replaceChildren(...rows);
}

async function allow(): Promise<void> {
  const input = byId("who", HTMLInputElement);
  const caller = callerOf(input.value);
  if (caller.kind === "page") {
    // The browser asks the user, and only while it handles the click: nothing may be awaited before.
    const isGranted = await chrome.permissions.request({ origins: [pagePattern(caller.who)] });
    if (!isGranted) throw new Error(`${caller.who} was not allowed.`);
  }
  const { key, client } = await makeKey(caller);
  await addClient(client);
  input.value = "";
  showKey(key, caller);
  await showClients();
}

/** An id of an extension, or else the address of a page. */
function callerOf(text: string): Caller {
  try {
    return { kind: "extension", who: extensionId(text) };
  } catch {
    return { kind: "page", who: pageOrigin(text) }; // It throws for what is neither.
  }
}

/** Shows a new key, once: only its hash is kept. */
function showKey(key: string, { kind, who }: Caller): void {
  const box = byId("new-key", HTMLElement);
  const copy = make("button", { type: "button", className: "primary" }, "Copy and close");
  copy.onclick = () =>
    attempt(async () => {
      await navigator.clipboard.writeText(key);
      box.hidden = true;
      box.replaceChildren();
    });
  const reload = kind === "page" ? " Pages of it that are open need a reload." : "";
  box.replaceChildren(
    make("p", {}, `The key of ${who}. It is shown this once.`),
    make("code", {}, key),
    make("p", { className: "quiet" }, `It works for this ${kind} only.${reload}`),
    make("div", { className: "actions" }, copy),
  );
  box.hidden = false;
  copy.focus();
}

async function revokeKey(client: Client): Promise<void> {
  const left = await removeClients(({ id }) => id === client.id);
  await showClients();
  const isLast = !left.some(({ kind, who }) => kind === client.kind && who === client.who);
  if (client.kind === "page" && isLast) await chrome.permissions.remove({ origins: [pagePattern(client.who)] });
}
