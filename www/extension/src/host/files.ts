/** Files that the user picked, in the extension's own file system, so that they are still there after a restart. */

const FOLDER = "picked-models";

async function folder(): Promise<FileSystemDirectoryHandle> {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(FOLDER, { create: true });
}

/** Copies a file, piece by piece, and tells how many bytes are done. A copy that breaks off leaves nothing behind. */
export async function keepPicked(file: File, onBytes: (bytes: number) => void): Promise<void> {
  const directory = await folder();
  const handle = await directory.getFileHandle(file.name, { create: true });
  let bytes = 0;
  const count = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      bytes += chunk.length;
      onBytes(bytes);
      controller.enqueue(chunk);
    },
  });
  try {
    await file.stream().pipeThrough(count).pipeTo(await handle.createWritable());
  } catch (error) {
    await directory.removeEntry(file.name);
    throw error;
  }
}

/** A file that was picked earlier. */
export async function openPicked(name: string): Promise<File> {
  return (await (await folder()).getFileHandle(name)).getFile();
}

/** All of them. */
export async function listPicked(): Promise<{ name: string; bytes: number }[]> {
  const files: { name: string; bytes: number }[] = [];
  for await (const handle of (await folder()).values()) {
    if (handle instanceof FileSystemFileHandle) files.push({ name: handle.name, bytes: (await handle.getFile()).size });
  }
  return files;
}

/** Deletes one. */
export async function deletePicked(name: string): Promise<void> {
  await (await folder()).removeEntry(name);
}
