/** Copies that were asked for over the control protocol: between files of the host, or the request's streams, and the guest. */
import type { CopyOptions, CopyProgress } from "../vm/guest-copy.js";
import { VmError } from "../vm/vm-error.js";
import { type Answer, type Request, Stream, VERBS } from "./catalogue.js";
import type { Exchange } from "./connection.js";
import type { ControlHost, ControlledMachine } from "./server.js";

/** A copy says so often how far it is. */
const PROGRESS_MS = 100;
/** A guest may name as many files as it likes that cannot be copied. */
const MAX_WARNINGS = 1000;
const MAX_SHOWN = 4096;
const ABSOLUTE = /^(?:\/|\\\\|[A-Za-z]:[\\/])/;

/** @param controller ends the copy: nobody waits for it any more, or who asked for it says so */
export async function copy(
  machine: ControlledMachine,
  host: ControlHost,
  exchange: Exchange,
  request: Request<"copy">,
  controller: AbortController,
): Promise<Answer<"copy">> {
  const { direction, guest, user, timeoutMs } = request;
  // the process that asks has another working folder
  if (request.host !== undefined && !ABSOLUTE.test(request.host))
    throw new VmError("bad-option", `${request.host} is no absolute path of this host`);
  exchange.onNote = (note) => {
    if (VERBS.copy.toServer(note, "").abort === true) controller.abort();
  };
  const tell = atIntervals(host, ({ bytes, totalBytes, files, current }: CopyProgress) => {
    const state = { bytes, files, current: current.slice(-MAX_SHOWN) };
    exchange.note({ progress: totalBytes === undefined ? state : { ...state, totalBytes } });
  });
  let warnings = 0;
  const o: CopyOptions = {
    signal: controller.signal,
    ...(user === undefined ? {} : { user }),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    onProgress: tell.next,
    onWarning: ({ path, reason }) => {
      if (++warnings <= MAX_WARNINGS)
        exchange.note({ warning: { path: path.slice(-MAX_SHOWN), reason: reason.slice(0, MAX_SHOWN) } });
    },
  };
  try {
    const { bytes, files } =
      direction === "in"
        ? await machine.copyIn(request.host ?? inputOf(exchange), guest, o)
        : await machine.copyOut(guest, request.host ?? ((data) => exchange.write(Stream.output, data)), o);
    return { bytes, files, warnings };
  } catch (error) {
    if (!(error instanceof VmError) || error.code !== "timeout" || timeoutMs === undefined) throw error;
    throw new VmError(
      "timeout",
      `the copy has not ended within ${timeoutMs / 1000} s`,
      "give it more time (--timeout)",
      error.consoleTail,
    );
  } finally {
    tell.close();
  }
}

/** Passes on the first at once, then the last of each interval. */
function atIntervals<T>(
  host: ControlHost,
  pass: (value: T) => void,
): { readonly next: (value: T) => void; readonly close: () => void } {
  let waiting: { readonly value: T } | undefined;
  let forget: (() => void) | undefined;
  const fire = (): void => {
    forget = undefined;
    if (waiting === undefined) return;
    const { value } = waiting;
    waiting = undefined;
    pass(value);
    forget = host.setTimer(PROGRESS_MS, fire);
  };
  return {
    next: (value) => {
      waiting = { value };
      if (forget === undefined) fire();
    },
    close: () => forget?.(),
  };
}

/** What comes on the request's input, up to its end; the peer sends more as it is taken. */
async function* inputOf(exchange: Exchange): AsyncGenerator<Uint8Array, void, void> {
  let next: { readonly bytes: Uint8Array; readonly taken: () => void } | undefined;
  let isAtEnd = false;
  let wake = (): void => {};
  exchange.read(
    Stream.input,
    (bytes) =>
      new Promise<void>((taken) => {
        next = { bytes, taken };
        wake();
      }),
    () => {
      isAtEnd = true;
      wake();
    },
  );
  exchange.onClose(() => wake());
  for (;;) {
    if (exchange.isClosed) throw new VmError("aborted", "the input ended with its sender");
    if (next !== undefined) {
      const { bytes, taken } = next;
      next = undefined;
      yield bytes;
      taken();
    } else if (isAtEnd) return;
    else
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
  }
}
