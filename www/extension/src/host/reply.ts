/** Posts to a port as long as its other end is there; what comes later has nobody to read it. */
export function replier<T>(port: chrome.runtime.Port): (message: T) => void {
  let isOpen = true;
  port.onDisconnect.addListener(() => (isOpen = false));
  return (message) => {
    if (isOpen) port.postMessage(message);
  };
}
