import { changeSettings, readSettings, type Settings } from "../settings.js";
import { attempt } from "./attempt.js";
import { byId, make } from "./dom.js";

/** Shows the settings, and stores each when it is changed. */
export function wireSettings(): void {
  const choices = { trigger: byId("trigger", HTMLSelectElement), device: byId("device", HTMLSelectElement), idle: byId("idle", HTMLSelectElement) };
  const numbers = { maxTokens: byId("max-tokens", HTMLInputElement), temperature: byId("temperature", HTMLInputElement) };
  const { trigger, device, idle } = choices;
  // What an option may be is checked where settings are read.
  trigger.onchange = () => attempt(() => changeSettings({ trigger: trigger.value as Settings["trigger"] }));
  device.onchange = () => attempt(() => changeSettings({ device: device.value as Settings["device"] }));
  idle.onchange = () => attempt(() => changeSettings({ idleMinutes: Number(idle.value) }));
  for (const [name, input] of Object.entries(numbers)) {
    input.onchange = () => {
      if (input.reportValidity()) attempt(() => changeSettings({ [name]: input.valueAsNumber }));
    };
  }
  attempt(async () => {
    const settings = await readSettings();
    trigger.value = settings.trigger;
    device.value = settings.device;
    const minutes = String(settings.idleMinutes);
    if (![...idle.options].some(({ value }) => value === minutes)) idle.append(make("option", { value: minutes }, `${minutes} minutes`));
    idle.value = minutes;
    numbers.maxTokens.valueAsNumber = settings.maxTokens;
    numbers.temperature.valueAsNumber = settings.temperature;
  });
}
