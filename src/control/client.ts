/** The other side: asks a machine's process, and hears at once when it is gone. */
import { VM_ERROR_CODES, VmError, type VmErrorCode } from "../vm/vm-error.js";
import { type Answer, failure, type Request, type ToClient, type ToServer, VERBS, type VerbName } from "./catalogue.js";
import { ControlConnection, type Exchange, type StreamListener, type Transport } from "./connection.js";

export interface AskOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** What a client needs of where it runs. */
export interface ClientHost {
  setTimer(ms: number, fire: () => void): () => void;
  /** The connection went before an answer came: what there is to say about it. */
  explain(doing: string): Promise<Error>;
}

/** A request under way. */
export interface Session<V extends VerbName> {
  /** Settles when what came on the streams before the answer has been handed over. */
  readonly result: Promise<Answer<V>>;
  /** Settles when there is room for more. */
  write(stream: number, data: Uint8Array): Promise<void>;
  end(stream: number): void;
  read(stream: number, listener: StreamListener): void;
  note(note: ToServer<V>): void;
  /** Nobody waits for it any more; `result` fails. */
  cancel(reason: Error): void;
}

interface Pending {
  readonly verb: VerbName;
  readonly exchange: Exchange;
  readonly resolve: (answer: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class ControlClient {
  readonly #host: ClientHost;
  readonly #connection: ControlConnection;
  readonly #pending = new Map<number, Pending>();
  #stranger: VmError | undefined;
  #greeted!: () => void;
  #refused!: (error: Error) => void;
  /** The other end has said who it is. */
  readonly ready: Promise<void>;
  #closed!: () => void;
  /** The connection is gone. */
  readonly closed: Promise<void>;

  constructor(transport: Transport, host: ClientHost) {
    this.#host = host;
    this.ready = new Promise((resolve, reject) => {
      this.#greeted = resolve;
      this.#refused = reject;
    });
    this.ready.catch(() => {});
    this.closed = new Promise((resolve) => {
      this.#closed = resolve;
    });
    this.#connection = new ControlConnection(transport, {
      onHello: () => this.#greeted(),
      onStranger: (why) => {
        this.#stranger = new VmError(
          "unsupported",
          why,
          "stop it with the enlighten that started it, or end its process",
        );
      },
      onOutcome: (id, isGood, body) => this.#settle(id, isGood, body),
      onClose: () => void this.#lost(),
    });
  }
  /** Where the transport's bytes go. */
  received(data: Uint8Array): void {
    this.#connection.received(data);
  }
  /** The transport is gone. */
  gone(): void {
    this.#connection.closed();
  }
  close(): void {
    this.#connection.destroy();
  }

  /** @param onNote gets what the machine says in the midst of it */
  begin<V extends VerbName>(verb: V, body: Request<V>, onNote: (note: ToClient<V>) => void = () => {}): Session<V> {
    let settle: Pick<Pending, "resolve" | "reject"> | undefined;
    const result = new Promise<Answer<V>>((resolve, reject) => {
      settle = { resolve: resolve as (answer: unknown) => void, reject };
    });
    const exchange = this.#connection.open({ verb, body });
    exchange.onNote = (note) => onNote(VERBS[verb].toClient(note, "") as ToClient<V>);
    const pending: Pending = { verb, exchange, ...settle! };
    if (exchange.isClosed) void this.#explain(verb).then(pending.reject);
    else this.#pending.set(exchange.id, pending);
    return {
      result,
      write: (stream, data) => exchange.write(stream, data),
      end: (stream) => exchange.end(stream),
      read: (stream, listener) => exchange.read(stream, listener),
      note: (note) => exchange.note(note),
      cancel: (reason) => {
        if (!this.#pending.delete(exchange.id)) return;
        this.#connection.cancel(exchange);
        pending.reject(reason);
      },
    };
  }
  /** One question, one answer. */
  async ask<V extends VerbName>(verb: V, body: Request<V>, { timeoutMs, signal }: AskOptions = {}): Promise<Answer<V>> {
    if (signal?.aborted === true) throw new VmError("aborted", `${verb} was aborted`);
    const session = this.begin(verb, body);
    const undo: (() => void)[] = [];
    if (timeoutMs !== undefined)
      undo.push(
        this.#host.setTimer(timeoutMs, () =>
          session.cancel(
            new VmError(
              "timeout",
              `the machine's process has not answered within ${timeoutMs / 1000} s`,
              "is it stopped?",
            ),
          ),
        ),
      );
    if (signal !== undefined) {
      const abort = (): void => session.cancel(new VmError("aborted", `${verb} was aborted`));
      signal.addEventListener("abort", abort);
      undo.push(() => signal.removeEventListener("abort", abort));
    }
    try {
      return await session.result;
    } finally {
      for (const f of undo) f();
    }
  }

  #settle(id: number, isGood: boolean, body: unknown): boolean {
    const pending = this.#pending.get(id);
    if (pending === undefined) return true;
    this.#pending.delete(id);
    try {
      const { exchange, resolve, reject } = pending;
      const answer = isGood ? VERBS[pending.verb].answer(body, "") : undefined;
      const error = isGood ? undefined : errorOf(body);
      // what came before it
      void exchange.delivered().then(() => (error === undefined ? resolve(answer) : reject(error)));
      return true;
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      pending.reject(new VmError("failed", `the machine's answer to ${pending.verb} is not in order: ${what}`));
      return false;
    }
  }
  async #lost(): Promise<void> {
    this.#closed();
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const { verb, reject } of all) void this.#explain(verb).then(reject);
    this.#refused(await this.#explain("connecting"));
  }
  async #explain(doing: string): Promise<Error> {
    return this.#stranger ?? this.#host.explain(doing);
  }
}

/** @throws ShapeError */
function errorOf(body: unknown): VmError {
  const { code, message, hint, consoleTail } = failure(body, "");
  const known = (VM_ERROR_CODES as readonly string[]).includes(code) ? (code as VmErrorCode) : "failed";
  return new VmError(known, message, hint, consoleTail);
}
