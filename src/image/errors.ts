/**
 * The one error that this folder throws at its callers: a file, an archive or a mirror was not what it should be.
 * `code` is stable (tests and `--json` use it), `message` says what is wrong, `hint` says the next thing to try.
 */
export class ImageError extends Error {
  override readonly name = "ImageError";
  readonly code: string;
  readonly hint: string;

  /**
   * @param code    stable, lower-kebab-case: "truncated", "bad-signature", ...
   * @param message what is wrong, naming the file or package
   * @param hint    what the user can do about it
   */
  constructor(code: string, message: string, hint: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.hint = hint;
  }
}

const FETCH_AGAIN = "get the file again: it was not stored or sent completely";

/** The bytes end before the format says they do. */
export function truncated(what: string): ImageError {
  return new ImageError("truncated", `${what} ends too early`, FETCH_AGAIN);
}

/** The bytes contradict their own format. */
export function damaged(what: string, why: string): ImageError {
  return new ImageError("damaged", `${what} is damaged: ${why}`, FETCH_AGAIN);
}

/** The format is known, this use of it is not supported. */
export function unsupported(what: string, hint: string): ImageError {
  return new ImageError("unsupported", what, hint);
}
