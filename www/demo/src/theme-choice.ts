/** `system` follows the browser's setting. */
export type Theme = "system" | "light" | "dark";

const KEY = "cinderlm-theme";

/** The visitor's choice on an earlier visit. */
export function storedTheme(): Theme {
  try {
    const stored = localStorage.getItem(KEY);
    return stored === "light" || stored === "dark" ? stored : "system";
  } catch {
    return "system"; // The browser refuses storage to this page.
  }
}

/** Keeps the choice for later visits, where the browser lets it. */
export function storeTheme(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // It holds until the page is closed.
  }
}

/** Colours the page; style.css does the rest. */
export function applyTheme(theme: Theme): void {
  if (theme === "system") document.documentElement.removeAttribute("data-theme");
  else document.documentElement.setAttribute("data-theme", theme);
}
