/**
 * Waits for a condition that has no event: asks until the answer is something, and fails after a minute. `what` names it, or tells it at the
 * end.
 */
export async function until(what, ask, { timeoutMillis = 60_000 } = {}) {
  const end = Date.now() + timeoutMillis;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited in vain for ${typeof what === "function" ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
