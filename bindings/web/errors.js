// Errors as the page gets them, and on their way there.

/** What went wrong: one sentence for a person in `message`, and a kind for a program. */
export class OpenELMError extends Error {
  constructor(kind, message) {
    super(message);
    this.name = "OpenELMError";
    this.kind = kind;
  }
}

/** The error that a message holds. */
export const received = ({ kind, message }) => new OpenELMError(kind, message);

/** What is sent of an error. The module's own are strings, the kind and the sentence. */
export function sent(error) {
  if (error instanceof OpenELMError) return { kind: error.kind, message: error.message };
  const [, kind, message] = /^([a-z]+): ([^]*)$/.exec(error) ?? [];
  return kind && typeof error === "string" ? { kind, message } : { kind: "defect", message: String(error?.message ?? error) };
}
