/** Tabs that wait for a file of which another tab's download is under way see how that goes. */
const CHANNEL = "cinderlm-downloads";
/** Pause between two announcements. */
const PAUSE_MILLIS = 200;

interface Announcement {
  id: string;
  bytes: number;
  total: number | undefined;
}

let channel: BroadcastChannel | undefined;

function open(): BroadcastChannel | undefined {
  if (typeof BroadcastChannel === "undefined") return undefined;
  channel ??= new BroadcastChannel(CHANNEL);
  (channel as { unref?: () => void }).unref?.(); // In Node it would keep the process.
  return channel;
}

/** Returns what tells the other tabs how far a file has come. */
export function announce(id: string): (bytes: number, total: number | undefined) => void {
  let last = -Infinity;
  return (bytes, total) => {
    const now = performance.now();
    if (now - last < PAUSE_MILLIS && bytes !== total) return;
    last = now;
    open()?.postMessage({ id, bytes, total } satisfies Announcement);
  };
}

/** Hears how far another tab's download of a file has come; returns what ends that. */
export function overhear(id: string, onBytes: (bytes: number, total: number | undefined) => void): () => void {
  const hear = ({ data }: MessageEvent<Announcement>): void => {
    if (data.id === id) onBytes(data.bytes, data.total);
  };
  const heard = open();
  heard?.addEventListener("message", hear as EventListener);
  return () => heard?.removeEventListener("message", hear as EventListener);
}
