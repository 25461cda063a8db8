import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { Idle } from "../src/host/idle.js";

/** Lets promises that are settled be heard. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("idle is told once nothing has run for the time, and not while something runs", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    let nIdle = 0;
    const idle = new Idle(async () => 2, async () => void (nIdle += 1));
    idle.begin();
    idle.begin();
    idle.end();
    await settle();
    mock.timers.tick(600_000);
    await settle();
    assert.equal(nIdle, 0, "one still runs");
    idle.end();
    await settle();
    mock.timers.tick(119_999);
    idle.touch();
    await settle();
    mock.timers.tick(119_999);
    await settle();
    assert.equal(nIdle, 0, "it was touched meanwhile");
    mock.timers.tick(1);
    await settle();
    assert.equal(nIdle, 1);
  } finally {
    mock.timers.reset();
  }
});
