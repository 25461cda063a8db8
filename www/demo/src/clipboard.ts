/** Copies a text. Resolves to what to tell the visitor. */
export async function copyText(text: string, what: string): Promise<string> {
  try {
    await navigator.clipboard.writeText(text);
    return `${what} copied`;
  } catch (error) {
    return `The browser refused to copy: ${error instanceof Error ? error.message : String(error)}`;
  }
}
