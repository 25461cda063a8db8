import { completionError, CompletionError, type ErrorCode } from "./errors.js";
import type { CallOptions, Completion, CompletionChunk, CompletionParams, ModelInfo } from "./types.js";

/** What answers. */
export interface FetchTarget {
  complete(params: CompletionParams, options: CallOptions): Promise<Completion | AsyncIterableIterator<CompletionChunk>>;
  models(): ModelInfo[];
}

/** Errors after which the same request may succeed. */
const RETRIABLE: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["queue_full", "user_limit", "device_lost", "download_failed", "remote_failed"]);
const CREATED = Math.floor(performance.timeOrigin / 1000);
const encoder = new TextEncoder();

/**
 * Answers a request as an OpenAI-compatible server would: `POST …/v1/completions`, as JSON or as server-sent events, `GET …/v1/models` and
 * `GET …/v1/models/{id}`. With `apiKeys`, only to those who bring one as a bearer token.
 *
 * Rejects as `fetch` does when the request's signal is aborted; every other failure is a response.
 */
export async function answerFetch(target: FetchTarget, apiKeys: readonly string[] | undefined, request: Request): Promise<Response> {
  try {
    const key = authorize(request, apiKeys);
    return await route(target, request, key);
  } catch (error) {
    if (request.signal.aborted) throw error;
    return failure(error);
  }
}

/** The key that the request brings, where one is asked for. */
function authorize(request: Request, apiKeys: readonly string[] | undefined): string | undefined {
  if (apiKeys === undefined) return undefined;
  const header = request.headers.get("authorization");
  if (header === null) throw completionError("missing_api_key", "An API key is needed: send it as `Authorization: Bearer <key>`.");
  const key = /^Bearer +(.+)$/i.exec(header)?.[1];
  if (key === undefined || !apiKeys.includes(key)) throw completionError("invalid_api_key", "The API key is not one of those that are accepted.");
  return key;
}

async function route(target: FetchTarget, request: Request, key: string | undefined): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (/\/v1\/completions\/?$/.test(pathname)) {
    allow(request, "POST");
    return complete(target, request, key);
  }
  const models = /\/v1\/models(?:\/(.+?))?\/?$/.exec(pathname);
  if (models !== null) {
    allow(request, "GET");
    return Response.json(models[1] === undefined ? list(target) : describe(target, decodeURIComponent(models[1])));
  }
  throw completionError("not_found", `There is nothing at ${pathname}: expected …/v1/completions, …/v1/models or …/v1/models/{id}.`);
}

function allow(request: Request, method: string): void {
  if (request.method !== method) throw completionError("method_not_allowed", `${request.method} is not allowed here: expected ${method}.`);
}

function list(target: FetchTarget): object {
  return { object: "list", data: target.models().map(({ id }) => model(id)) };
}

function describe(target: FetchTarget, id: string): object {
  if (!target.models().some((known) => known.id === id)) throw completionError("model_not_found", `Model ${JSON.stringify(id)} is not registered.`, "model");
  return model(id);
}

function model(id: string): object {
  return { id, object: "model", created: CREATED, owned_by: "cinderlm" };
}

async function complete(target: FetchTarget, request: Request, key: string | undefined): Promise<Response> {
  const params = await body(request);
  // Those who bring different keys learn nothing of each other.
  const answer = await target.complete(params, { signal: request.signal, ...(key === undefined ? {} : { caller: key }) });
  if (params.stream !== true) return Response.json(answer);
  const events = serverSentEvents(answer as AsyncIterableIterator<CompletionChunk>, request.signal);
  return new Response(events, { headers: { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store" } });
}

async function body(request: Request): Promise<CompletionParams> {
  let value: unknown;
  try {
    value = await request.json();
  } catch (error) {
    if (request.signal.aborted) throw error;
    throw completionError("invalid_type", `The body must be JSON: ${String(error)}.`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw completionError("invalid_type", "The body must be a JSON object.");
  return value as CompletionParams;
}

/** The chunks as events, made as they are read; a failure midway is the last event. */
function serverSentEvents(chunks: AsyncIterableIterator<CompletionChunk>, signal: AbortSignal): ReadableStream<Uint8Array> {
  const event = (data: unknown): Uint8Array => encoder.encode(`data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`);
  return new ReadableStream(
    {
      async pull(controller) {
        try {
          const { done, value } = await chunks.next();
          controller.enqueue(event(done === true ? "[DONE]" : value));
          if (done === true) controller.close();
        } catch (error) {
          if (signal.aborted) {
            controller.error(error);
            return;
          }
          controller.enqueue(event({ error: errorObject(asCompletionError(error)) }));
          controller.close();
        }
      },
      async cancel() {
        await chunks.return?.();
      },
    },
    { highWaterMark: 0 },
  );
}

function failure(thrown: unknown): Response {
  const error = asCompletionError(thrown);
  const headers = new Headers();
  if (!RETRIABLE.has(error.code)) headers.set("x-should-retry", "false");
  if (error.retry_after !== undefined) headers.set("retry-after", String(Math.ceil(error.retry_after)));
  if (error.code === "missing_api_key" || error.code === "invalid_api_key") headers.set("www-authenticate", "Bearer");
  return Response.json({ error: errorObject(error) }, { status: error.status, headers });
}

function asCompletionError(error: unknown): CompletionError {
  return error instanceof CompletionError ? error : completionError("internal", String(error));
}

function errorObject({ message, type, param, code }: CompletionError): object {
  return { message, type, param, code };
}
