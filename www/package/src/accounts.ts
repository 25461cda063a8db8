import { CompletionError, errorBody } from "./errors.js";
import type { CompletionParams, Limits, Logger, RequestReport, Usage, UserLimits } from "./types.js";

const MINUTE_MILLIS = 60_000;
/** When to try again if requests of one's own are in the way: about as long as a short completion takes. */
const RETRY_AFTER_SECONDS = 1;
const DEFAULT_MAX_TOKENS = 16;

/** How a request ended. */
export interface RequestEnd {
  ran_on: "local" | "remote";
  outcome: RequestReport["outcome"];
  /** What it failed with. */
  error?: unknown;
  usage: Usage | null;
  timings: RequestReport["timings"];
}

/** A request that is counted. */
export interface OpenAccount {
  /** Its caller has left: another request may take its place, though what it used is not known yet. */
  release(): void;
  /** The request has ended. Later calls change nothing. */
  close(end: RequestEnd): void;
}

interface UserState {
  nRunning: number;
  /** Tokens that the running requests may come to. */
  nReserved: number;
  /** What ended requests have used, oldest first. */
  spent: { at: number; nTokens: number }[];
}

/** Counts requests for each user: refuses those that are too many and reports every one that was taken. */
export class Accounts {
  readonly #perUser: UserLimits;
  readonly #users = new Map<string, UserState>();
  readonly #onUsage: ((report: RequestReport) => void) | undefined;
  readonly #logger: Logger;
  readonly #now: () => number;

  constructor(limits: Limits | undefined, onUsage: ((report: RequestReport) => void) | undefined, logger: Logger, now = () => performance.now()) {
    this.#perUser = limits?.perUser ?? {};
    this.#onUsage = onUsage;
    this.#logger = logger;
    this.#now = now;
  }

  /**
   * Takes a request on. Requests without a `user` count as one user's; those of a caller who brought a key count as that caller's, whatever
   * user they name.
   *
   * @throws CompletionError `user_limit`.
   */
  open(params: CompletionParams, caller?: string): OpenAccount {
    const now = this.#now();
    this.#forget(now);
    const name = caller === undefined ? `user ${params.user ?? ""}` : `caller ${caller}`;
    const user = this.#users.get(name) ?? { nRunning: 0, nReserved: 0, spent: [] };
    const nTokens = mostGenerated(params);
    this.#check(user, nTokens, now);
    this.#users.set(name, user);
    user.nRunning += 1;
    user.nReserved += nTokens;
    const created = Date.now();
    let isOpen = true;
    let isRunning = true;
    const release = (): void => {
      if (isRunning) user.nRunning -= 1;
      isRunning = false;
    };
    return {
      release,
      close: (end) => {
        if (!isOpen) return;
        isOpen = false;
        release();
        const ended = this.#now();
        user.nReserved -= nTokens;
        // What nobody counted, on a server or in a worker that died, is taken for the most that it may have been.
        const nSpent = end.usage?.total_tokens ?? (end.outcome === "failed" ? 0 : nTokens);
        if (nSpent > 0 && this.#perUser.tokensPerMinute !== undefined) user.spent.push({ at: ended, nTokens: nSpent });
        this.#report(params, end, created, ended - now);
      },
    };
  }

  #check(user: UserState, nTokens: number, now: number): void {
    const { concurrent, tokensPerMinute } = this.#perUser;
    if (concurrent !== undefined && user.nRunning >= concurrent) {
      throw userLimit(`${user.nRunning} requests of this user run, the most that may`, RETRY_AFTER_SECONDS);
    }
    if (tokensPerMinute === undefined) return;
    const nSpent = user.spent.reduce((sum, { nTokens }) => sum + nTokens, 0);
    let nUsed = nSpent + user.nReserved;
    // Whoever has used nothing may ask for more than the limit: it would be refused for ever.
    if (nUsed === 0 || nUsed + nTokens <= tokensPerMinute) return;
    const message = `this user's requests of the last minute come to ${nUsed} tokens, and this one asks for up to ${nTokens}; the limit is ${tokensPerMinute}`;
    for (const { at, nTokens: nFreed } of user.spent) {
      nUsed -= nFreed;
      if (nUsed === 0 || nUsed + nTokens <= tokensPerMinute) throw userLimit(message, (at + MINUTE_MILLIS - now) / 1000);
    }
    throw userLimit(message, RETRY_AFTER_SECONDS);
  }

  /** Drops what is older than a minute, and users of whom nothing is left. */
  #forget(now: number): void {
    for (const [name, user] of this.#users) {
      user.spent = user.spent.filter(({ at }) => at + MINUTE_MILLIS > now);
      if (user.nRunning === 0 && user.nReserved === 0 && user.spent.length === 0) this.#users.delete(name);
    }
  }

  #report(params: CompletionParams, end: RequestEnd, created: number, durationMillis: number): void {
    if (this.#onUsage === undefined) return;
    const { ran_on, outcome, usage, timings, error } = end;
    const code = error instanceof CompletionError ? error.code : null;
    const { user = null, model } = params;
    const failed = (thrown: unknown): void => this.#logger.error(`onUsage threw: ${String(thrown)}`);
    const report = { user, model, ran_on, outcome, error_code: code, usage, created_millis: created, duration_millis: durationMillis, timings };
    try {
      Promise.resolve<unknown>(this.#onUsage(report)).catch(failed); // An async function passes for one that gives nothing.
    } catch (thrown) {
      failed(thrown);
    }
  }
}

/** Prompts of a request. */
export function nPrompts({ prompt }: CompletionParams): number {
  return Array.isArray(prompt) && typeof prompt[0] !== "number" ? prompt.length : 1;
}

/** Tokens that a request may generate at most. */
function mostGenerated(params: CompletionParams): number {
  return nPrompts(params) * Number(params.best_of ?? params.n ?? 1) * Number(params.max_tokens ?? DEFAULT_MAX_TOKENS);
}

function userLimit(message: string, retryAfter: number): CompletionError {
  return new CompletionError({ ...errorBody("user_limit", `${message}.`, "user"), retry_after: retryAfter });
}
