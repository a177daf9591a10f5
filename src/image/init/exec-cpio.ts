/**
 * The second cpio, appended to the initramfs: what to run instead of a login shell. The command travels in a file, so
 * that its length and its bytes are free (the kernel's command line has 2,047 bytes and rules of its own).
 */
import { concatBytes, encodeUtf8 } from "../byte-reader.js";
import { writeCpio } from "../cpio.js";
import { ImageError } from "../errors.js";

/** Says that there is a host that talks to the agent, and how. */
const BY_AGENT = "etc/enlighten/by-agent";

/** Bytes are passed on as they are, text as UTF-8. */
export type ExecText = string | Uint8Array;

const bytesOf = (text: ExecText): Uint8Array => (typeof text === "string" ? encodeUtf8(text) : text);

function checked(text: ExecText, what: string): Uint8Array {
  const bytes = bytesOf(text);
  if (bytes.includes(0)) {
    throw new ImageError("bad-command", `${what} has a zero byte`, "Linux ends arguments at a zero byte: leave it out");
  }
  return bytes;
}

/** In single quotes, each quote of its own as '\'' . */
function quoted(text: ExecText, what: string): Uint8Array {
  const bytes = checked(text, what);
  const out = [0x27];
  for (const byte of bytes) out.push(...(byte === 0x27 ? [0x27, 0x5c, 0x27, 0x27] : [byte]));
  out.push(0x27);
  return Uint8Array.from(out);
}

/** How the agent in the guest is used: it runs the command, or it only stands by while the shell has the console. */
export type AgentMode = "exec" | "shell";

/**
 * @param command a text is a shell script (`sh -c`); a list is a program and its arguments, run without a shell's help
 * @param env     added to the environment
 * @param agent   start the agent; where it cannot run, the command is run the other way, over serial ports
 */
export function execCpio(
  command: ExecText | readonly ExecText[] | undefined,
  env: Readonly<Record<string, string>> = {},
  agent?: AgentMode,
): Uint8Array<ArrayBuffer> {
  let script: Uint8Array | undefined;
  if (command === undefined) script = undefined;
  else if (typeof command === "string" || command instanceof Uint8Array) script = checked(command, "the command");
  else {
    if (command.length === 0) throw new ImageError("bad-command", "the command is empty", "name a program to run");
    const words = command.flatMap((word) => [encodeUtf8(" "), quoted(word, "an argument")]);
    script = concatBytes([encodeUtf8("exec"), ...words, encodeUtf8("\n")]);
  }
  const settings = Object.entries(env).map(([name, value]) => {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      throw new ImageError("bad-command", `"${name}" is no name for an environment variable`, "use A-Z, 0-9 and _");
    }
    return concatBytes([encodeUtf8(`export ${name}=`), quoted(value, `variable ${name}`), encodeUtf8("\n")]);
  });
  return writeCpio([
    { kind: "directory", path: "etc", mode: 0o755 },
    { kind: "directory", path: "etc/enlighten", mode: 0o755 },
    { kind: "file", path: "etc/enlighten/env", mode: 0o644, data: concatBytes(settings) },
    ...(script === undefined ? [] : [{ kind: "file", path: "etc/enlighten/exec", mode: 0o644, data: script } as const]),
    ...(agent === undefined
      ? []
      : [{ kind: "file", path: BY_AGENT, mode: 0o644, data: encodeUtf8(`${agent}\n`) } as const]),
  ]);
}
