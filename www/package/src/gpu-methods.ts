/** A method of one of WebGPU's classes. */
export type Method = (this: object, ...parameters: unknown[]) => unknown;
/** Where WebGPU's classes are, by name; none of them need be there. */
export type Realm = Record<string, unknown>;

/** Puts what `make` makes of each method in its place, of those that the class has. */
export function replaceMethods(realm: Realm, name: string, methods: string[], make: (own: Method) => Method): void {
  const prototype = (realm[name] as { prototype: Record<string, Method> } | undefined)?.prototype;
  for (const method of methods) {
    const own = prototype?.[method];
    if (prototype !== undefined && own !== undefined) prototype[method] = make(own);
  }
}
