// The manifests of both browsers: one text, and what differs.
import { readFileSync } from "node:fs";

const { version, description } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));

const icons = (look) => Object.fromEntries([16, 32, 48, 128].map((size) => [size, `icons/${look}-${size}.png`]));

/**
 * Nothing but the extension's own scripts runs, and the module may be compiled. Models may be at any https address, and on this machine; the
 * engine sends nothing there but requests for files.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "object-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self' https: http://localhost:* http://127.0.0.1:*",
].join("; ");

/** What both browsers are told. */
const common = {
  manifest_version: 3,
  name: "cinderlm",
  version,
  description,
  icons: icons("warm"),
  action: { default_title: "cinderlm", default_icon: icons("cold") },
  commands: {
    complete: { suggested_key: { default: "Alt+C" }, description: "Complete the text at the caret" },
  },
  content_security_policy: { extension_pages: POLICY },
  // None is asked for before the user allows a site to call the engine, and then that one only.
  optional_host_permissions: ["https://*/*", "http://*/*"],
};

const chromium = {
  ...common,
  minimum_chrome_version: "120",
  permissions: ["activeTab", "scripting", "storage", "offscreen", "sidePanel"],
  background: { service_worker: "background.js", type: "module" },
  side_panel: { default_path: "panel.html" },
  // Any extension may knock; which ones are answered is the user's choice, so it is decided when they do. No web page may.
  externally_connectable: { ids: ["*"] },
};

const firefox = {
  ...common,
  permissions: ["activeTab", "scripting", "storage"],
  background: { scripts: ["background.js"], type: "module" },
  sidebar_action: { default_title: "cinderlm", default_panel: "panel.html", default_icon: icons("warm"), open_at_install: false },
  browser_specific_settings: {
    gecko: {
      id: "{7b1c9d62-5a0e-4f43-9d0b-c1de12e3a9f4}",
      strict_min_version: "142.0",
      data_collection_permissions: { required: ["none"] },
    },
  },
};

/** The manifest of `chromium` or `firefox`. */
export function manifest(browser) {
  return browser === "firefox" ? firefox : chromium;
}
