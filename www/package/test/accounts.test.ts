import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Accounts, type RequestEnd } from "../src/accounts.js";
import { CompletionError, errorBody } from "../src/errors.js";
import type { Limits, Logger, RequestReport } from "../src/types.js";

const logged: string[] = [];
const logger: Logger = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: (message) => void logged.push(message) };

function open(perUser: Limits["perUser"] = {}): { accounts: Accounts; reports: RequestReport[]; clock: { now: number } } {
  const reports: RequestReport[] = [];
  const clock = { now: 1000 };
  const accounts = new Accounts({ perUser }, (report) => reports.push(report), logger, () => clock.now);
  return { accounts, reports, clock };
}

function end(nTokens: number | null, outcome: RequestEnd["outcome"] = "completed"): RequestEnd {
  const usage = nTokens === null ? null : { prompt_tokens: 0, completion_tokens: nTokens, total_tokens: nTokens };
  return { ran_on: "local", outcome, usage, timings: null };
}

const isLimit = (retryAfter: (seconds: number) => boolean) => (error: unknown): boolean => {
  assert.ok(error instanceof CompletionError);
  assert.deepEqual([error.status, error.type, error.code, error.param], [429, "rate_limit_error", "user_limit", "user"]);
  assert.ok(error.retry_after !== undefined && retryAfter(error.retry_after), String(error.retry_after));
  return true;
};

test("a user has so many requests at a time, and another as many", () => {
  const { accounts } = open({ concurrent: 2 });
  const first = accounts.open({ model: "m", user: "a" });
  accounts.open({ model: "m", user: "a" });
  assert.throws(() => accounts.open({ model: "m", user: "a" }), isLimit((seconds) => seconds > 0));
  accounts.open({ model: "m", user: "b" });
  accounts.open({ model: "m" });
  first.close(end(1));
  first.close(end(1));
  accounts.open({ model: "m", user: "a" });
  assert.throws(() => accounts.open({ model: "m", user: "a" }), isLimit((seconds) => seconds > 0));
});

test("tokens of the last minute count, and those that running requests may come to", () => {
  const { accounts, clock } = open({ tokensPerMinute: 100 });
  accounts.open({ model: "m", user: "a", max_tokens: 500 }).close(end(60));
  clock.now += 20_000;
  const running = accounts.open({ model: "m", user: "a", max_tokens: 10, n: 3 });
  assert.throws(() => accounts.open({ model: "m", user: "a", max_tokens: 11 }), isLimit((seconds) => seconds === 40));
  accounts.open({ model: "m", user: "a", max_tokens: 10 }).close(end(5));
  running.close(end(20));
  clock.now += 40_001;
  accounts.open({ model: "m", user: "a", max_tokens: 75 });
});

test("what an ended request did not count is taken for the most it may have been, and a failed one for nothing", () => {
  const { accounts } = open({ tokensPerMinute: 100 });
  accounts.open({ model: "m", max_tokens: 90, prompt: "x" }).close(end(null, "failed"));
  accounts.open({ model: "m", max_tokens: 90 }).close(end(null, "aborted"));
  assert.throws(() => accounts.open({ model: "m", max_tokens: 11 }), isLimit((seconds) => seconds === 60));
});

test("each request is reported once, with its user, tokens and times", () => {
  const { accounts, reports, clock } = open();
  const account = accounts.open({ model: "m", user: "a" });
  clock.now += 250;
  account.close(end(7));
  account.close(end(8));
  const error = new CompletionError(errorBody("device_lost", "gone"));
  accounts.open({ model: "m" }).close({ ...end(null, "failed"), error });
  const shown = reports.map(({ created_millis, ...rest }) => rest);
  const report = { model: "m", ran_on: "local", timings: null } as const;
  assert.deepEqual(shown, [
    { ...report, user: "a", outcome: "completed", error_code: null, usage: end(7).usage, duration_millis: 250 },
    { ...report, user: null, outcome: "failed", error_code: "device_lost", usage: null, duration_millis: 0 },
  ]);
});

test("who has left makes room at once, though what was used is told later", () => {
  const { accounts, reports } = open({ concurrent: 1, tokensPerMinute: 100 });
  const account = accounts.open({ model: "m", max_tokens: 60 });
  account.release();
  const next = accounts.open({ model: "m", max_tokens: 40 });
  next.release();
  assert.throws(() => accounts.open({ model: "m", max_tokens: 1 }), isLimit((seconds) => seconds > 0));
  account.close(end(10, "aborted"));
  accounts.open({ model: "m", max_tokens: 50 });
  assert.equal(reports.length, 1);
});

test("callers count by their key, whatever user they name", () => {
  const { accounts } = open({ concurrent: 1 });
  accounts.open({ model: "m", user: "a" }, "key");
  assert.throws(() => accounts.open({ model: "m", user: "b" }, "key"), isLimit((seconds) => seconds > 0));
  accounts.open({ model: "m", user: "key" });
});

test("a hook whose promise is rejected is logged", async () => {
  const accounts = new Accounts(undefined, (() => Promise.reject(new Error("billing is down"))) as () => void, logger);
  accounts.open({ model: "m" }).close(end(1));
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.match(logged.at(-1) ?? "", /billing is down/);
});

test("a hook that throws is logged and disturbs nobody", () => {
  const accounts = new Accounts(undefined, () => assert.fail("hook"), logger);
  accounts.open({ model: "m" }).close(end(1));
  assert.match(logged.at(-1) ?? "", /onUsage threw.*hook/);
});

test("no user is ever past the limits, and none waits longer than told", () => {
  const actions = fc.array(
    fc.record({ user: fc.constantFrom("a", "b", undefined), tokens: fc.integer({ min: 1, max: 300 }), used: fc.option(fc.double({ min: 0, max: 1, noNaN: true })), millis: fc.integer({ min: 0, max: 30_000 }), ends: fc.boolean() }),
    { maxLength: 60 },
  );
  fc.assert(
    fc.property(actions, fc.integer({ min: 1, max: 4 }), fc.integer({ min: 60, max: 200 }), (steps, concurrent, tokensPerMinute) => {
      const { accounts, clock } = open({ concurrent, tokensPerMinute });
      const running: { user: string; nTokens: number; close: (n: number | null) => void }[] = [];
      const spent: { user: string; at: number; nTokens: number }[] = [];
      for (const { user, tokens, used, millis, ends } of steps) {
        clock.now += millis;
        const name = user ?? "";
        try {
          const account = accounts.open({ model: "m", user: user ?? null, max_tokens: tokens });
          running.push({ user: name, nTokens: tokens, close: (n) => account.close(end(n, n === null ? "aborted" : "completed")) });
        } catch (error) {
          isLimit((seconds) => seconds > 0 && seconds <= 60)(error);
          const own = spent.filter(({ user, at }) => user === name && at + 60_000 > clock.now);
          assert.ok(own.length > 0 || running.some(({ user }) => user === name), "whoever has used nothing is taken");
        }
        const own = running.filter((one) => one.user === name);
        assert.ok(own.length <= concurrent);
        const recent = spent.filter(({ user, at }) => user === name && at + 60_000 > clock.now);
        const total = [...own, ...recent].reduce((sum, { nTokens }) => sum + nTokens, 0);
        // More only for who was alone when it came.
        assert.ok(total <= tokensPerMinute || own.length + recent.length === 1, `${total} of ${tokensPerMinute}`);
        const ended = ends ? running.shift() : undefined;
        if (ended !== undefined) {
          const nTokens = used === null ? ended.nTokens : Math.round(ended.nTokens * used);
          ended.close(used === null ? null : nTokens);
          if (nTokens > 0) spent.push({ user: ended.user, at: clock.now, nTokens });
        }
      }
    }),
  );
});
