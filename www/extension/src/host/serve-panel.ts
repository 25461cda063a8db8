import type { PanelReply, PanelRequest, StorageReport } from "../messages.js";
import { bodyOf } from "./engine.js";
import type { Host } from "./host.js";
import { replier } from "./reply.js";

/** Answers the panel, which is the extension's own page: what it sends is as the types say. */
export function servePanel(host: Host, port: chrome.runtime.Port): void {
  const reply = replier<PanelReply>(port);
  reply({ type: "state", state: host.engine.state });
  port.onMessage.addListener((request: PanelRequest) => {
    // A panel that closes leaves what it began: a download goes on.
    const work = async (): Promise<void> => {
      const storage = await perform(host, request);
      reply({ type: "done", id: request.id, ...(storage === undefined ? {} : { storage }) });
    };
    host.run(port, { abort: new AbortController() }, work).catch((error: unknown) => reply({ type: "failed", id: request.id, error: bodyOf(error) }));
  });
}

async function perform(host: Host, request: PanelRequest): Promise<StorageReport | undefined> {
  const { settings } = await host.link.config();
  switch (request.type) {
    case "load":
      await host.engine.prepare(settings);
      return undefined;
    case "sleep":
      await host.engine.end();
      await host.link.report({ phase: "asleep" });
      return undefined;
    case "storage":
      return host.engine.storage(settings);
    case "delete":
      await host.engine.deleteFile(request.file, settings);
      return host.engine.storage(settings);
  }
}
