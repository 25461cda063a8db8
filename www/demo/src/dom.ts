/** What {@link make} can set on an element beside its children. */
export interface Props {
  class?: string;
  text?: string;
  attributes?: Record<string, string>;
  onClick?: () => void;
}

/** Makes an element. Text is only ever set as text: what a model or a link says cannot become markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (props.class !== undefined) element.className = props.class;
  if (props.text !== undefined) element.textContent = props.text;
  for (const [name, value] of Object.entries(props.attributes ?? {})) element.setAttribute(name, value);
  if (props.onClick !== undefined) element.addEventListener("click", props.onClick);
  element.append(...children);
  return element;
}

/** A button that does something on this page. */
export function button(label: string, onClick: () => void, className = "button"): HTMLButtonElement {
  return make("button", { class: className, text: label, attributes: { type: "button" }, onClick });
}

/** The element of the page with this id, which index.html is known to have. */
export function byId<T extends HTMLElement>(id: string, type: abstract new () => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`index.html has no ${type.name} with the id ${id}`);
  return element;
}
