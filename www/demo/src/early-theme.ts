// Runs before the first paint, so that a page in the visitor's own choice of colours never flashes in the other.
import { applyTheme, storedTheme } from "./theme-choice.js";

applyTheme(storedTheme());
