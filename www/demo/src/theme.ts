import { applyTheme, storedTheme, storeTheme, type Theme } from "./theme-choice.js";

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const LABELS: Record<Theme, string> = { system: "Colours: system", light: "Colours: light", dark: "Colours: dark" };

/** Makes the button go through the three choices. */
export function initTheme(toggle: HTMLButtonElement): void {
  let theme = storedTheme();
  const show = (): void => {
    applyTheme(theme);
    toggle.textContent = LABELS[theme];
  };
  toggle.addEventListener("click", () => {
    theme = NEXT[theme];
    storeTheme(theme);
    show();
  });
  show();
}
