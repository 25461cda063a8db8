import { byId, make } from "./dom.js";
import { FIELDS, fieldOf, initialValues, type Field, type FieldName, type FormValues } from "./fields.js";

type Control = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

interface Row {
  field: Field;
  control: Control;
  fault: HTMLElement;
}

/** The controls of a request, made from the table of fields. */
export class RequestForm {
  readonly #rows = new Map<FieldName, Row>();
  readonly #more: HTMLDetailsElement;

  constructor(onChange: () => void) {
    this.#more = byId("more", HTMLDetailsElement);
    for (const field of FIELDS) {
      const { row, element } = buildRow(field);
      byId(`fields-${field.group}`, HTMLElement).append(element);
      this.#rows.set(field.name, row);
      row.control.addEventListener("input", () => {
        clearFault(row);
        this.#connectChecks();
        onChange();
      });
    }
    this.fill(initialValues());
  }

  get values(): FormValues {
    const values = initialValues();
    for (const [name, { control }] of this.#rows) values[name] = valueOf(control);
    return values;
  }

  /** Shows these values; opens the rest of the fields if one of them differs from a fresh form. */
  fill(values: FormValues): void {
    for (const { field, control } of this.#rows.values()) {
      if (isCheck(control)) control.checked = values[field.name] === "true";
      else control.value = values[field.name];
      if (field.group === "more" && values[field.name] !== field.initial) this.#more.open = true;
    }
    this.#connectChecks();
  }

  /** Shows a refusal at the control that it names. False if it names none of them. */
  showFault(param: string, message: string): boolean {
    const name = fieldOf(param);
    const row = name === undefined ? undefined : this.#rows.get(name);
    if (row === undefined) return false;
    if (row.field.group === "more") this.#more.open = true;
    row.fault.textContent = message;
    row.fault.hidden = false;
    row.control.setAttribute("aria-invalid", "true");
    row.control.focus();
    return true;
  }

  clearFaults(): void {
    for (const row of this.#rows.values()) clearFault(row);
  }

  /** Token counts at the end of a stream are for streams only, and refused without. */
  #connectChecks(): void {
    const stream = this.#rows.get("stream")?.control;
    const usage = this.#rows.get("include_usage")?.control;
    if (stream !== undefined && usage !== undefined) usage.disabled = valueOf(stream) !== "true";
  }
}

function buildRow(field: Field): { row: Row; element: HTMLElement } {
  const { name, label, hint } = field;
  const control = buildControl(field);
  const id = `field-${name}`;
  control.id = id;
  control.name = name;
  control.setAttribute("aria-describedby", `${id}-hint ${id}-fault`);
  const fault = make("p", { class: "fault", attributes: { id: `${id}-fault` } });
  fault.hidden = true;
  const labelled = make("label", { text: label, attributes: { for: id } });
  const hinted = make("p", { class: "hint", text: hint, attributes: { id: `${id}-hint` } });
  const parts = field.control === "check" ? [make("div", { class: "check" }, control, labelled)] : [labelled, control];
  const kind = field.control === "lines" || field.control === "choice" ? "field wide" : "field";
  const element = make("div", { class: `${kind} field-${name}` }, ...parts, hinted, fault);
  return { row: { field, control, fault }, element };
}

function buildControl({ control, name, placeholder, options }: Field): Control {
  const attributes: Record<string, string> = placeholder === undefined ? {} : { placeholder };
  switch (control) {
    case "lines":
      return make("textarea", { attributes: { ...attributes, rows: name === "prompt" ? "5" : "2", spellcheck: "false" } });
    case "choice":
      return make("select", {}, ...(options ?? []).map(([value, text]) => make("option", { text, attributes: { value } })));
    case "check":
      return make("input", { attributes: { type: "checkbox" } });
    case "number":
      return make("input", { attributes: { ...attributes, type: "text", inputmode: "decimal", autocomplete: "off" } });
    case "line":
      return make("input", { attributes: { ...attributes, type: "text", autocomplete: "off" } });
  }
}

function clearFault({ control, fault }: Row): void {
  fault.hidden = true;
  fault.textContent = "";
  control.removeAttribute("aria-invalid");
}

function isCheck(control: Control): control is HTMLInputElement {
  return control instanceof HTMLInputElement && control.type === "checkbox";
}

function valueOf(control: Control): string {
  return isCheck(control) ? String(control.checked) : control.value;
}
