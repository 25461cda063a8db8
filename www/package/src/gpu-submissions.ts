type Method = (this: object, ...parameters: unknown[]) => unknown;

/** What must not overtake commands that were submitted before it, or tells when they are done. */
const AFTER = {
  GPUQueue: ["writeBuffer", "writeTexture", "copyExternalImageToTexture", "onSubmittedWorkDone"],
  GPUBuffer: ["mapAsync", "destroy"],
  GPUDevice: ["destroy", "pushErrorScope", "popErrorScope"],
};

/**
 * Joins submissions to a queue that follow each other with nothing in between into one, made at the latest when the code that runs has run.
 *
 * The runtime's compute library (cubecl 0.11) submits a step's launches and the copy of its result apart, because its scheduler flushes a stream
 * before each read. A submission takes a browser tens of microseconds, which a small model on a fast GPU has few of for a token.
 */
export function joinSubmissions(realm: Record<string, unknown> = globalThis as unknown as Record<string, unknown>): void {
  const queue = methodsOf(realm, "GPUQueue");
  const submit = queue?.["submit"];
  if (queue === undefined || submit === undefined) return;
  /** What is held back, queue by queue. */
  const held = new Map<object, unknown[]>();
  const release = (): void => {
    const all = [...held];
    held.clear();
    for (const [queue, commands] of all) submit.call(queue, commands);
  };
  queue["submit"] = function (this: object, commands) {
    if (held.size === 0) queueMicrotask(release);
    held.set(this, [...(held.get(this) ?? []), ...(commands as Iterable<unknown>)]);
  };
  for (const [name, methods] of Object.entries(AFTER)) {
    const prototype = methodsOf(realm, name);
    for (const method of methods) {
      const own = prototype?.[method];
      if (prototype === undefined || own === undefined) continue;
      prototype[method] = function (this: object, ...parameters) {
        release();
        return own.apply(this, parameters);
      };
    }
  }
}

function methodsOf(realm: Record<string, unknown>, name: string): Record<string, Method> | undefined {
  return (realm[name] as { prototype: Record<string, Method> } | undefined)?.prototype;
}
