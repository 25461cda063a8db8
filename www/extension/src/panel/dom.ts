type Child = Node | string | undefined;

/** Makes an element: with properties, then children. Texts become text nodes, so nothing that is shown is ever read as markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<Omit<HTMLElementTagNameMap[K], "style" | "dataset">> & { [attribute: `aria-${string}`]: string } = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-")) element.setAttribute(name, String(value));
    else Reflect.set(element, name, value);
  }
  element.append(...children.filter((child) => child !== undefined));
  return element;
}

/** The element of the page with this id. The page is the panel's own, so it is there and is what it is said to be. */
export function byId<T extends HTMLElement>(id: string, type: new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`panel.html has no ${type.name} with the id ${id}`);
  return element;
}

/** A size for people. */
export function megabytes(bytes: number): string {
  const mega = bytes / 1e6;
  return mega >= 1000 ? `${(mega / 1000).toFixed(2)} GB` : mega >= 1 ? `${Math.round(mega)} MB` : `${Math.max(1, Math.round(bytes / 1000))} kB`;
}

/** Seconds for people. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
