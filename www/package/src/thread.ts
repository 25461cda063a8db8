/// <reference lib="webworker" />
// One thread of the CPU's kernels: an instance of the module on the memory that all share. Once told to serve, it does so until it is ended.
import { abandonThread, initSync, serveThread } from "../generated/cpu-threads/cpu-threads.js";
import { READY, SERVE, type ThreadStart } from "./threads.js";

/** The kernels' frames are small, and whatever else runs stays in the first thread. */
const STACK_BYTES = 1 << 18;

addEventListener("message", ({ data }: MessageEvent<ThreadStart | typeof SERVE>) => {
  if (data === SERVE) return serve();
  initSync({ ...data, thread_stack_size: STACK_BYTES });
  postMessage(READY);
});

function serve(): void {
  try {
    serveThread();
  } catch (error) {
    abandonThread(); // The first thread may be asleep until this one is done.
    throw error;
  }
}
