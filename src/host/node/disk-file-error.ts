/** A disk's file is not what it should be. `code` is stable, `message` says what is wrong, `hint` the next thing to try. */
export class DiskFileError extends Error {
  override readonly name = "DiskFileError";
  readonly code: string;
  readonly hint: string;

  constructor(code: string, message: string, hint: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.hint = hint;
  }
}
