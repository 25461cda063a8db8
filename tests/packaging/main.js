// What every packaging project runs: the package by its name, on the tiny model.
import * as cinderlm from "cinderlm";

globalThis.cinderlm = cinderlm;
globalThis.completeTiny = async (options) => {
  const cinder = new cinderlm.Cinder({ device: "cpu", models: [{ id: "tiny", url: "/tiny.gguf" }], ...options });
  const { threads } = await cinder.device();
  const { notStored } = await cinder.load("tiny");
  const { choices, cinderlm: run } = await cinder.complete({ model: "tiny", prompt: "<|endoftext|>A cinder slept", temperature: 0, max_tokens: 12 });
  await cinder.dispose();
  return { text: choices[0].text, device: run.device, threads, notStored: notStored?.code };
};
