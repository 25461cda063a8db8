import { connect } from "./client.js";

/** What a call comes to: its text, or the status and code of its failure. */
globalThis.complete = async (extensionId, key, params) => {
  try {
    const answer = await connect({ extensionId, key }).complete(params);
    if (!params.stream) return answer.choices[0].text;
    let text = "";
    for await (const chunk of answer) text += chunk.choices[0]?.text ?? "";
    return text;
  } catch (error) {
    return { name: error.name, status: error.status, code: error.code };
  }
};
