import { type Realm, replaceMethods } from "./gpu-methods.js";

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
export function joinSubmissions(realm: Realm = globalThis as unknown as Realm): void {
  /** What is held back, queue by queue. */
  const held = new Map<object, unknown[]>();
  let release = (): void => undefined;
  replaceMethods(realm, "GPUQueue", ["submit"], (submit) => {
    release = () => {
      const all = [...held];
      held.clear();
      for (const [queue, commands] of all) submit.call(queue, commands);
    };
    return function (commands) {
      if (held.size === 0) queueMicrotask(release);
      held.set(this, [...(held.get(this) ?? []), ...(commands as Iterable<unknown>)]);
    };
  });
  for (const [name, methods] of Object.entries(AFTER)) {
    replaceMethods(
      realm,
      name,
      methods,
      (own) =>
        function (...parameters) {
          release();
          return own.apply(this, parameters);
        },
    );
  }
}
