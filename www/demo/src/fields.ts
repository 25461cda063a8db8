/** The controls of the request form. All but `prompt_kind` are fields of a request. */
export type FieldName =
  | "prompt"
  | "prompt_kind"
  | "max_tokens"
  | "temperature"
  | "top_p"
  | "n"
  | "suffix"
  | "stop"
  | "best_of"
  | "seed"
  | "logprobs"
  | "frequency_penalty"
  | "presence_penalty"
  | "logit_bias"
  | "user"
  | "echo"
  | "stream"
  | "include_usage";

/** One control of the form: how it looks, and what it starts with. */
export interface Field {
  name: FieldName;
  label: string;
  /** `number` is a line of text: what is typed reaches the package, which says what is wrong with it. */
  control: "line" | "number" | "lines" | "check" | "choice";
  group: "prompt" | "essential" | "more";
  /** What the form starts with; checks are `true` or `false`. Empty: the field is not sent. */
  initial: string;
  hint: string;
  placeholder?: string;
  /** Values and labels of a `choice`. */
  options?: readonly (readonly [value: string, label: string])[];
}

/** Logarithms of this many alternatives are asked for when the visitor asks for none: the colours need them. */
export const DISPLAY_LOGPROBS = 5;

/** All controls, in the order of the form. */
export const FIELDS: readonly Field[] = [
  {
    name: "prompt",
    label: "Prompt",
    control: "lines",
    group: "prompt",
    initial: "Once upon a time",
    hint: "The model goes on where this ends.",
  },
  {
    name: "prompt_kind",
    label: "Prompt holds",
    control: "choice",
    group: "more",
    initial: "text",
    hint: "Several prompts make a set of choices each.",
    options: [
      ["text", "one text"],
      ["lines", "a text on each line"],
      ["ids", "token ids, a prompt on each line"],
    ],
  },
  {
    name: "max_tokens",
    label: "Max tokens",
    control: "number",
    group: "essential",
    initial: "64",
    hint: "16 if empty",
    placeholder: "16",
  },
  {
    name: "temperature",
    label: "Temperature",
    control: "number",
    group: "essential",
    initial: "",
    hint: "0 to 2",
    placeholder: "1",
  },
  { name: "top_p", label: "Top p", control: "number", group: "essential", initial: "", hint: "0 to 1", placeholder: "1" },
  { name: "n", label: "Choices (n)", control: "number", group: "essential", initial: "", hint: "1 to 128", placeholder: "1" },
  {
    name: "suffix",
    label: "Suffix",
    control: "lines",
    group: "more",
    initial: "",
    hint: "Text that comes after. Only models with fill-in-the-middle tokens take it.",
  },
  {
    name: "stop",
    label: "Stop",
    control: "lines",
    group: "more",
    initial: "",
    hint: "Up to four texts that end it, one a line. \\n is a line break, \\t a tab, \\\\ a backslash.",
  },
  {
    name: "best_of",
    label: "Best of",
    control: "number",
    group: "more",
    initial: "",
    hint: "Generate so many, keep the n likeliest; more than n only without stream.",
    placeholder: "n",
  },
  {
    name: "seed",
    label: "Seed",
    control: "number",
    group: "more",
    initial: "",
    hint: "The same seed gives the same text.",
    placeholder: "random",
  },
  {
    name: "logprobs",
    label: "Logprobs",
    control: "number",
    group: "more",
    initial: "",
    hint: "Alternatives for each token, 0 to 5.",
    placeholder: String(DISPLAY_LOGPROBS),
  },
  {
    name: "frequency_penalty",
    label: "Frequency penalty",
    control: "number",
    group: "more",
    initial: "",
    hint: "−2 to 2, for each earlier use of a token",
    placeholder: "0",
  },
  {
    name: "presence_penalty",
    label: "Presence penalty",
    control: "number",
    group: "more",
    initial: "",
    hint: "−2 to 2, once for a token that was used",
    placeholder: "0",
  },
  {
    name: "logit_bias",
    label: "Logit bias",
    control: "lines",
    group: "more",
    initial: "",
    hint: "A token id and −100 to 100 on each line, as in 42: -100.",
    placeholder: "42: -100",
  },
  { name: "user", label: "User", control: "line", group: "more", initial: "", hint: "A name for whoever asks; it stays here." },
  {
    name: "echo",
    label: "Echo",
    control: "check",
    group: "more",
    initial: "false",
    hint: "Put the prompt before the text, with its probabilities.",
  },
  { name: "stream", label: "Stream", control: "check", group: "more", initial: "true", hint: "Show the text as it comes." },
  {
    name: "include_usage",
    label: "Include usage",
    control: "check",
    group: "more",
    initial: "true",
    hint: "End the stream with token counts. Only with stream.",
  },
];

/** What the form holds: the text of each control. */
export type FormValues = Record<FieldName, string>;

/** What the form starts with. */
export function initialValues(): FormValues {
  return Object.fromEntries(FIELDS.map(({ name, initial }) => [name, initial])) as FormValues; // FIELDS has every name; a test holds it to that.
}

/** The control that shows what is wrong with `param`, as errors name it: `stop[1]`, `logit_bias.7`, `stream_options.include_usage`. */
export function fieldOf(param: string): FieldName | undefined {
  const name = param.replace(/[[.].*$/s, "");
  if (name === "stream_options") return "include_usage";
  return FIELDS.find((field) => field.name === name)?.name;
}
