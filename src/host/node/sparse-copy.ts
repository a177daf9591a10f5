/** Copies of disk images that stay sparse, and share their blocks where the file system can. */
import { spawn } from "node:child_process";
import { constants, copyFile, open, rm } from "node:fs/promises";

const PIECE = 4 << 20;
const ZERO = Buffer.alloc(64 << 10);

/** Reads everything, writes what is not zero: where there is neither shared blocks nor a `cp` that finds holes. */
export async function copyNonZero(from: string, to: string): Promise<void> {
  const source = await open(from);
  try {
    const target = await open(to, "wx");
    try {
      const { size } = await source.stat();
      await target.truncate(size);
      const buffer = Buffer.alloc(PIECE);
      for (let at = 0; at < size; ) {
        const { bytesRead } = await source.read(buffer, 0, PIECE, at);
        if (bytesRead === 0) break;
        for (let i = 0; i < bytesRead; i += ZERO.length) {
          const piece = buffer.subarray(i, Math.min(i + ZERO.length, bytesRead));
          if (!piece.equals(ZERO.subarray(0, piece.length))) await target.write(piece, 0, piece.length, at + i);
        }
        at += bytesRead;
      }
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}

/** GNU's cp asks the file system for holes. @returns whether it did the work */
function copyByProgram(from: string, to: string): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn("cp", ["--sparse=auto", "--reflink=auto", "--", from, to], { stdio: "ignore" });
    child.on("error", () => resolve(false));
    child.on("exit", (code) => resolve(code === 0));
  });
}

/** `to` must not exist; nothing of it stays when copying fails. */
export async function copySparse(from: string, to: string): Promise<void> {
  try {
    await copyFile(from, to, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE_FORCE);
    return;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") throw error;
  }
  try {
    await rm(to, { force: true });
    if (process.platform === "linux" && (await copyByProgram(from, to))) return;
    await rm(to, { force: true });
    await copyNonZero(from, to);
  } catch (error) {
    await rm(to, { force: true });
    throw error;
  }
}
