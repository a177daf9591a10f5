/** Every wait of the API: with a time-out, an AbortSignal, and an end when the machine ends. */
import type { Platform } from "./platform.js";
import { VmError } from "./vm-error.js";

/** How long to wait. A wait also ends with the machine. */
export interface WaitOptions {
  /** The wait fails with "timeout" after so many ms. Default: it does not. */
  readonly timeoutMs?: number;
  /** The wait fails with "aborted" when this is aborted. */
  readonly signal?: AbortSignal;
}

/** The machine, as waits see it. */
export interface WaitContext {
  readonly platform: Platform;
  readonly hasEnded: boolean;
  endError(): VmError;
  /** @returns a function that forgets the listener */
  onEnd(listener: () => void): () => void;
  consoleTail(): string;
}

/** One wait: `arm` gets what settles it and returns what undoes it. */
export function waitUntil<T>(
  context: WaitContext,
  what: string,
  o: WaitOptions,
  failAtEnd: boolean,
  arm: (done: (value: T) => void, fail: (e: Error) => void) => () => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const undo: (() => void)[] = [];
    let settled = false;
    const settle = (): void => {
      settled = true;
      for (const f of undo.splice(0)) f();
    };
    const done = (value: T): void => {
      settle();
      resolve(value);
    };
    const fail = (e: Error): void => {
      settle();
      reject(e);
    };
    if (o.signal?.aborted) return fail(new VmError("aborted", `waiting for ${what} was aborted`));
    if (failAtEnd && context.hasEnded) return fail(context.endError());
    if (o.timeoutMs !== undefined)
      undo.push(
        context.platform.setTimer(o.timeoutMs, () =>
          fail(
            new VmError(
              "timeout",
              `waited ${o.timeoutMs} ms for ${what}`,
              "give it more time (timeoutMs)",
              context.consoleTail(),
            ),
          ),
        ),
      );
    if (o.signal !== undefined) {
      const { signal } = o;
      const onAbort = (): void => fail(new VmError("aborted", `waiting for ${what} was aborted`));
      signal.addEventListener("abort", onAbort);
      undo.push(() => signal.removeEventListener("abort", onAbort));
    }
    if (failAtEnd) undo.push(context.onEnd(() => fail(context.endError())));
    try {
      const disarm = arm(done, fail);
      if (settled) disarm();
      else undo.push(disarm);
    } catch (e) {
      fail(e as Error);
    }
  });
}
