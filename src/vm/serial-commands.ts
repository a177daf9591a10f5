/**
 * Commands over serial ports, for guests without an agent: one after the other, each a line of base64 on COM4; output on COM2 and
 * COM3, and "exit N" on COM4 when it has ended (image/init/command-server.ts).
 */
import { concatBytes } from "../image/byte-reader.js";
import { shellWords } from "../image/init/command-server.js";
import type { Command, ExecResult } from "./guest-agent.js";
import type { SerialNumber } from "./machine-spec.js";
import { VmError } from "./vm-error.js";
import { type WaitContext, type WaitOptions, waitUntil } from "./wait.js";

/** Base64 characters of a command: the guest's terminal buffers 64 KiB and drops the rest. */
const MAX_COMMAND = 48_000;

/** Base64 without line breaks (RFC 4648); `btoa` would want a string of characters below 256. */
function base64(bytes: Uint8Array): string {
  const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  let out = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const n = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    out +=
      digits[n >> 18]! +
      digits[(n >> 12) & 63]! +
      (i + 1 < bytes.length ? digits[(n >> 6) & 63]! : "=") +
      (i + 2 < bytes.length ? digits[n & 63]! : "=");
  }
  return out;
}

/** The machine's serial ports. */
export interface SerialPorts {
  write(data: string, serial: SerialNumber): void;
  onOutput(serial: SerialNumber, listener: (bytes: Uint8Array) => void): () => void;
  onReboot(listener: () => void): () => void;
}

export class SerialCommands {
  readonly #context: WaitContext;
  readonly #ports: SerialPorts;
  /** What COM4 says when commands are taken. */
  readonly #readyWord: string;
  #line = "";
  #ready = false;
  readonly #readyListeners = new Set<() => void>();
  #last: Promise<unknown> = Promise.resolve();
  #ended: ((exitCode: number) => void) | undefined;
  /** Commands that were given up here and run on there. */
  #abandoned = 0;
  #forgetOutput: () => void = () => {};
  /** Exit code of the command that came with the boot. */
  exitCode: number | undefined;

  constructor(context: WaitContext, ports: SerialPorts, readyWord: "serving" | "ready") {
    this.#context = context;
    this.#ports = ports;
    this.#readyWord = readyWord;
  }
  get ready(): boolean {
    return this.#ready;
  }
  setReady(ready: boolean): void {
    this.#ready = ready;
    if (!ready) this.#abandoned = 0;
    else for (const f of [...this.#readyListeners]) f();
  }
  onReady(listener: () => void): () => void {
    this.#readyListeners.add(listener);
    return () => void this.#readyListeners.delete(listener);
  }
  /** Bytes of COM4. */
  receive(bytes: Uint8Array): void {
    for (const b of bytes) {
      if (b !== 10) {
        if (this.#line.length < 256) this.#line += String.fromCharCode(b);
        continue;
      }
      const line = this.#line.trim();
      this.#line = "";
      if (line === this.#readyWord) this.setReady(true);
      const exit = /^exit (\d+)$/.exec(line);
      if (exit === null) continue;
      if (this.#abandoned > 0) {
        this.#abandoned--;
        this.#forgetOutput();
      } else if (this.#ended !== undefined) this.#ended(Number(exit[1]));
      else this.exitCode = Number(exit[1]);
    }
  }
  async exec(command: Command, o: WaitOptions = {}): Promise<ExecResult> {
    const script = base64(new TextEncoder().encode(typeof command === "string" ? command : shellWords(command)));
    // more than the guest's terminal holds would be cut there
    if (script.length > MAX_COMMAND)
      throw new VmError(
        "bad-option",
        `the command has ${script.length} bytes in base64; ${MAX_COMMAND} fit`,
        "write a file in pieces first, or give it as `exec` of createVm",
      );
    const before = this.#last;
    const since = this.#context.platform.now();
    // the time that it waits for its turn counts too
    const run = waitUntil<void>(this.#context, "earlier commands to end", o, true, (done) => {
      void before.then(() => done());
      return () => {};
    }).then(() => {
      if (o.timeoutMs === undefined) return this.#exec(script, o);
      const spent = (this.#context.platform.now() - since) / 1e6;
      return this.#exec(script, { ...o, timeoutMs: Math.max(1, o.timeoutMs - spent) });
    });
    this.#last = Promise.allSettled([before, run]);
    return run;
  }
  async #exec(script: string, o: WaitOptions): Promise<ExecResult> {
    const output: Uint8Array[][] = [[], []];
    const ports = this.#ports;
    const undo = [ports.onOutput(1, (b) => void output[0]!.push(b)), ports.onOutput(2, (b) => void output[1]!.push(b))];
    try {
      const exitCode = await waitUntil<number>(this.#context, "the command to end", o, true, (done, fail) => {
        let ended = false;
        this.#ended = (code) => {
          ended = true;
          done(code);
        };
        this.#forgetOutput = () => {
          for (const parts of output) parts.length = 0;
        };
        const rebooted = ports.onReboot(() => {
          ended = true;
          const tail = this.#context.consoleTail();
          fail(new VmError("ended", "the guest rebooted while the command ran", "", tail));
        });
        ports.write(`${script}\n`, 3);
        return () => {
          rebooted();
          this.#ended = undefined;
          // given up here, it still runs there: its end and its output are nobody's
          if (!ended) this.#abandoned++;
        };
      });
      const [stdout, stderr] = output.map((parts) => concatBytes(parts)) as [Uint8Array, Uint8Array];
      return {
        exitCode,
        stdout: new TextDecoder().decode(stdout),
        stderr: new TextDecoder().decode(stderr),
        stdoutBytes: stdout,
      };
    } finally {
      for (const f of undo) f();
    }
  }
}
