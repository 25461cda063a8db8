import { messageOf } from "../errors.js";
import { byId } from "./dom.js";

/** Runs what a control asks for; a failure is shown to the user. */
export function attempt(work: () => Promise<unknown>): void {
  const message = byId("message", HTMLElement);
  message.hidden = true;
  work().catch((error: unknown) => {
    message.textContent = messageOf(error);
    message.hidden = false;
    message.scrollIntoView({ block: "nearest" });
  });
}
