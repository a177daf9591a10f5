/** One end of a copy that is no file of the host: bytes that come from somewhere, or go somewhere. */
import type { CopySink, CopySource } from "./copy-files.js";
import { COPY_CHUNK, type CopyStep } from "./copy-protocol.js";
import { VmError } from "./vm-error.js";

const NOTHING = new Uint8Array(0);
const MODE = 0o644;
const ZEROS = new Uint8Array(64 << 10);

/** Bytes for a file of the guest: who reads and writes it is as for one that is made by hand. @param seconds its time */
export function sourceOfBytes(bytes: AsyncIterable<Uint8Array>, seconds: number): CopySource {
  return {
    name: NOTHING,
    totalBytes: undefined,
    async *steps() {
      yield {
        is: "entry",
        entry: {
          kind: "file",
          name: NOTHING,
          mode: MODE,
          mtime: { seconds: Math.floor(seconds), ns: 0 },
          size: 0,
          major: 0,
          minor: 0,
          target: NOTHING,
        },
      };
      let offset = 0;
      for await (const piece of bytes)
        for (let at = 0; at < piece.length; ) {
          const chunk = piece.subarray(at, at + COPY_CHUNK);
          yield { is: "data", offset, bytes: chunk };
          offset += chunk.length;
          at += chunk.length;
        }
      yield { is: "file-end", size: offset };
    },
  };
}

/** Gets a file's bytes in their order; until its promise is settled, no more come. */
export type BytesListener = (bytes: Uint8Array) => void | Promise<void>;

/** A guest's file as bytes, holes as zeros. @param path as the user knows it */
export function sinkOfBytes(path: string, listener: BytesListener): CopySink {
  let end = 0;
  let isClosed = false;
  const fill = async (to: number): Promise<void> => {
    while (end < to && !isClosed) {
      const zeros = ZEROS.slice(0, to - end);
      end += zeros.length;
      await listener(zeros);
    }
  };
  return {
    async take(step: CopyStep): Promise<void> {
      if (isClosed) return;
      switch (step.is) {
        case "entry":
          if (step.entry.kind !== "file")
            throw new VmError(
              "exists",
              `${path} in the guest is a ${step.entry.kind.replace("-", " ")}, and no file`,
              "copy it to a folder",
            );
          break;
        case "data":
          await fill(step.offset);
          end += step.bytes.length;
          // they are the receiver's until this is settled, and who listens may keep them
          await listener(step.bytes.slice());
          break;
        case "file-end":
          await fill(step.size);
          break;
      }
    },
    async finish() {},
    close() {
      isClosed = true;
    },
  };
}
