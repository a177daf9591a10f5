/** The host's end of a copy out of a guest: records in, steps for the sink out. Whatever the guest says, it ends. */
import {
  CopyRecord,
  type CopyStep,
  CopyViolation,
  decodeData,
  decodeEntry,
  decodeFailure,
  decodeFileEnd,
  decodeWarning,
  failureOfErrno,
  fileError,
  MAX_DEPTH,
  type RecordReader,
} from "./copy-protocol.js";
import { CopySum } from "./copy-sum.js";

export class CopyReceiver {
  readonly #reader: RecordReader;
  readonly #sum = new CopySum();
  readonly #folders: string[] = [];
  #isFirst = true;
  /** Name of the file that is open, and where its next data may begin. */
  #file: string | undefined;
  #at = 0;

  constructor(reader: RecordReader) {
    this.#reader = reader;
  }
  #path(name: string): string {
    return [...this.#folders, name].join("/");
  }
  /**
   * The next step; undefined: the other end says that this was all.
   * @throws CopyViolation, VmError what the guest could not read, or a checksum that differs
   */
  async next(): Promise<CopyStep | undefined> {
    const record = await this.#reader.next();
    if (record === undefined) throw new CopyViolation("the connection ended in the middle");
    const { type, payload } = record;
    switch (type) {
      case CopyRecord.entry:
        return this.#entry(payload);
      case CopyRecord.data: {
        if (this.#file === undefined) throw new CopyViolation("data of no file");
        const { offset, bytes } = decodeData(payload);
        if (offset < this.#at) throw new CopyViolation("data that go back");
        this.#at = offset + bytes.length;
        this.#sum.add(offset, bytes);
        return { is: "data", offset, bytes };
      }
      case CopyRecord.fileEnd: {
        if (this.#file === undefined) throw new CopyViolation("the end of no file");
        const { size, sum } = decodeFileEnd(payload);
        if (size < this.#at) throw new CopyViolation("a file that is shorter than its data");
        if (sum !== this.#sum.value) throw fileError("mismatch", this.#path(this.#file), "from the guest", "");
        this.#file = undefined;
        return { is: "file-end", size };
      }
      case CopyRecord.leave:
        if (this.#file !== undefined || this.#folders.pop() === undefined) throw new CopyViolation("no folder is open");
        return { is: "leave" };
      case CopyRecord.warning:
        return { is: "warning", ...decodeWarning(payload) };
      case CopyRecord.failed:
        throw guestFailure(payload);
      case CopyRecord.end:
        if (this.#isFirst || this.#file !== undefined || this.#folders.length > 0)
          throw new CopyViolation("an end in the middle");
        return undefined;
      default:
        throw new CopyViolation("a record of no known type");
    }
  }
  #entry(payload: Uint8Array): CopyStep {
    if (this.#file !== undefined) throw new CopyViolation("an entry within a file");
    if (!this.#isFirst && this.#folders.length === 0) throw new CopyViolation("an entry in no folder");
    const entry = decodeEntry(payload, this.#isFirst);
    if (this.#isFirst && entry.kind === "hardlink") throw new CopyViolation("a link to nothing");
    this.#isFirst = false;
    const name = new TextDecoder().decode(entry.name);
    if (entry.kind === "directory") {
      if (this.#folders.length >= MAX_DEPTH) throw new CopyViolation("folders that are too deep");
      this.#folders.push(name);
    } else if (entry.kind === "file") {
      this.#file = name;
      this.#at = 0;
      this.#sum.reset();
    }
    return { is: "entry", entry };
  }
}

/** What the copier in the guest could not do. */
export function guestFailure(payload: Uint8Array): Error {
  const { errno, path, text } = decodeFailure(payload);
  return fileError(failureOfErrno(errno), path, "in the guest", text);
}
