import type { DeviceInfo, DeviceKind } from "cinderlm";
import { byId, make } from "./dom.js";
import type { AppState } from "./session.js";
import type { Store } from "./store.js";

const KINDS: readonly (readonly [DeviceKind, string])[] = [
  ["auto", "Automatic"],
  ["webgpu", "WebGPU"],
  ["cpu", "CPU"],
];

/** Which device runs, why, and the choice of another. */
export function initDevicePanel(store: Store<AppState>, onChoose: (device: DeviceKind) => void): void {
  const reason = make("p", { class: "device-reason" });
  const problem = make("p", { class: "fault", attributes: { role: "alert" } });
  const radios = KINDS.map(([kind, label]) => {
    const input = make("input", { attributes: { type: "radio", name: "device", value: kind, id: `device-${kind}` } });
    input.addEventListener("change", () => onChoose(kind));
    return { input, row: make("div", { class: "check" }, input, make("label", { text: label, attributes: { for: `device-${kind}` } })) };
  });
  const choice = make("fieldset", { class: "segments" }, make("legend", { text: "Run on" }), ...radios.map(({ row }) => row));
  byId("device", HTMLElement).append(reason, problem, choice);
  const chip = byId("device-chip", HTMLElement);
  store.watch(({ device, deviceInfo, deviceProblem }) => {
    for (const { input } of radios) input.checked = input.value === device;
    reason.textContent = deviceInfo === undefined ? "" : reasonOf(deviceInfo);
    reason.hidden = deviceInfo === undefined;
    problem.textContent = deviceProblem === undefined ? "" : `${deviceProblem.message} ${deviceProblem.advice}`;
    problem.hidden = deviceProblem === undefined;
    if (deviceProblem !== undefined) chip.textContent = "No device";
    else chip.textContent = deviceInfo === undefined ? "Finding a device…" : `Runs on ${nameOf(deviceInfo.kind)}`;
  });
}

function reasonOf({ kind, name, reason }: DeviceInfo): string {
  return kind === "cpu" ? `The model runs on the CPU: ${reason}` : `The model runs on the GPU (${name.replace(/^webgpu: /, "")}): ${reason}`;
}

function nameOf(kind: "webgpu" | "cpu"): string {
  return kind === "cpu" ? "the CPU" : "the GPU";
}
