/** The integration services as an API: what the guest's own drivers answer. One object for a machine's life, over reboots. */
import type { ShutdownOutcome } from "../services/integration/shutdown.js";
import type { TraceRecord } from "../trace/trace.js";
import type {
  DeviceStatus,
  DiskSpec,
  FromDevices,
  HeartbeatStatus,
  PlainError,
  ServiceName,
  ToDevices,
} from "./device-messages.js";
import { GuestSocket } from "./guest-socket.js";
import { networkFailure } from "./network-failure.js";
import { VmError, type VmErrorCode } from "./vm-error.js";
import { type WaitContext, type WaitOptions, waitUntil } from "./wait.js";

/** What has lit up. */
export interface Lights {
  /** "5.3"; undefined before the guest's driver has connected. */
  readonly vmbusVersion: string | undefined;
  /** Services whose driver in the guest has opened its channel. */
  readonly services: readonly string[];
}

/** How to ask the guest to go down. */
export interface ShutdownOptions extends WaitOptions {
  /** It is to come up again. */
  readonly restart?: boolean;
  /** Do not wait for applications. */
  readonly force?: boolean;
  /** For its users. */
  readonly message?: string;
}

/** Reaches the device side; undefined when the machine has none. */
export type DevicePort = ((message: ToDevices, transfer?: readonly object[]) => void) | undefined;

/** What the guest's own drivers answer. */
export class Integration {
  readonly #context: WaitContext;
  readonly #port: () => DevicePort;
  #lights: Lights = { vmbusVersion: undefined, services: [] };
  readonly #lightListeners = new Set<(lights: Lights) => void>();
  #nextId = 1;
  readonly #answers = new Map<number, (m: FromDevices) => void>();
  #nextSocket = 1;
  readonly #sockets = new Map<number, GuestSocket>();
  readonly #listeners = new Map<number, (socket: GuestSocket) => void>();
  readonly #problemListeners = new Set<(text: string) => void>();

  /** @internal */
  constructor(context: WaitContext, port: () => DevicePort) {
    this.#context = context;
    this.#port = port;
  }
  #need(): NonNullable<DevicePort> {
    if (this.#context.hasEnded) throw this.#context.endError();
    const port = this.#port();
    if (port === undefined)
      throw new VmError("no-services", "this machine offers no synthetic devices", 'start it without services: "none"');
    return port;
  }
  /** For what has an API of its own: one question to the device side, one answer. @internal */
  ask<T extends FromDevices>(
    what: string,
    o: WaitOptions,
    message: (id: number) => ToDevices,
    type: T["type"],
    transfer: readonly object[] = [],
  ): Promise<T> {
    return waitUntil<T>(this.#context, what, o, true, (done) => {
      const id = this.#nextId++;
      this.#answers.set(id, (m) => {
        if (m.type === type) done(m as T);
      });
      this.#need()(message(id), transfer);
      return () => void this.#answers.delete(id);
    });
  }

  // ---- what lit up ------------------------------------------------------------------------------------------------------
  /** What the guest has connected to so far. */
  get lights(): Lights {
    return this.#lights;
  }
  /** Called at each change. @returns a function that ends it */
  onLights(listener: (lights: Lights) => void): () => void {
    this.#lightListeners.add(listener);
    return () => void this.#lightListeners.delete(listener);
  }
  /** Waits until the guest's drivers have opened all of these. */
  waitForLights(services: readonly (ServiceName | string)[], o: WaitOptions = {}): Promise<Lights> {
    return waitUntil<Lights>(this.#context, `drivers of ${services.join(", ")}`, o, true, (done) => {
      const check = (lights: Lights): void => {
        if (services.every((s) => lights.services.includes(s))) done(lights);
      };
      const off = this.onLights(check);
      queueMicrotask(() => check(this.#lights));
      return off;
    });
  }
  /** A disk failed, a service complains. */
  onProblem(listener: (text: string) => void): () => void {
    this.#problemListeners.add(listener);
    return () => void this.#problemListeners.delete(listener);
  }
  /** The state of all synthetic devices. @throws VmError "no-services" where there are none */
  async status(o: WaitOptions = {}): Promise<DeviceStatus> {
    const answer = await this.ask<Extract<FromDevices, { type: "status" }>>(
      "the devices' status",
      o,
      (id) => ({ type: "status", id }),
      "status",
    );
    return answer.status;
  }
  /** "no-contact" until the guest has answered once. */
  async heartbeat(o: WaitOptions = {}): Promise<HeartbeatStatus> {
    const { heartbeat } = await this.status(o);
    return heartbeat ?? { health: "no-contact", replies: 0 };
  }

  // ---- shutdown and time ------------------------------------------------------------------------------------------------
  /**
   * Asks the guest to power off, or to restart. Settles when it has said yes or no; `Vm.waitForEnd` tells when it is down.
   * @throws VmError "not-ready" when no driver has taken the service, "refused", "unsupported"
   */
  async shutdown(o: ShutdownOptions = {}): Promise<void> {
    const request = {
      restart: o.restart ?? false,
      force: o.force ?? false,
      message: o.message ?? "",
      timeoutSeconds: 0,
    };
    const { outcome } = await this.ask<Extract<FromDevices, { type: "shutdown-answer" }>>(
      "the guest's answer to the shutdown request",
      o,
      (id) => ({ type: "shutdown", id, request }),
      "shutdown-answer",
    );
    if (outcome === "accepted") return;
    const hints: Record<Exclude<ShutdownOutcome, "accepted">, string> = {
      "not-ready": "wait for the driver (waitForLights), or end it with kill()",
      busy: "another request waits for its answer",
      refused: "the guest said no; kill() ends it anyway",
      unsupported: "this guest knows power-off only",
    };
    throw new VmError(outcome, `the guest did not take the shutdown request: ${outcome}`, hints[outcome]);
  }
  /** Sets the guest's clock to the host's. */
  synchronizeTime(): void {
    this.#need()({ type: "synchronize" });
  }

  // ---- disks ------------------------------------------------------------------------------------------------------------
  /** Attaches a disk while the guest runs. @returns its LUN */
  async addDisk(
    disk: Omit<DiskSpec, "kind"> & { readonly kind?: DiskSpec["kind"] },
    o: WaitOptions = {},
  ): Promise<number> {
    const answer = await this.ask<Extract<FromDevices, { type: "disk-answer" }>>(
      "the disk",
      o,
      (id) => ({ type: "add-disk", id, disk: { kind: "disk", ...disk } }),
      "disk-answer",
    );
    if (answer.error !== undefined) throw fromPlain(answer.error);
    return answer.lun!;
  }
  /** Unplugs a disk; it is closed then. @throws VmError where there is none */
  async removeDisk(lun: number, o: WaitOptions = {}): Promise<void> {
    const answer = await this.ask<Extract<FromDevices, { type: "disk-answer" }>>(
      "the disk to go",
      o,
      (id) => ({ type: "remove-disk", id, lun }),
      "disk-answer",
    );
    if (answer.error !== undefined) throw fromPlain(answer.error);
  }

  // ---- sockets ----------------------------------------------------------------------------------------------------------
  /** Connects to a port that a program in the guest listens on (AF_VSOCK). @throws VmError "refused" when nobody does */
  connect(port: number, o: WaitOptions = {}): Promise<GuestSocket> {
    return waitUntil<GuestSocket>(this.#context, `the guest's port ${port}`, o, true, (done, fail) => {
      const send = this.#need();
      const id = this.#nextSocket++;
      let open = false;
      const socket = new GuestSocket(id, port, send, () => void this.#sockets.delete(id));
      socket.onOpen = () => {
        open = true;
        done(socket);
      };
      socket.onRefused = () =>
        fail(
          new VmError("refused", `nobody in the guest took a connection to port ${port}`, "is its listener running?"),
        );
      this.#sockets.set(id, socket);
      send({ type: "connect", socket: id, port });
      return () => {
        if (!open) socket.destroy();
      };
    });
  }
  /** Takes connections that the guest makes to port `port` of its host (CID 2). @returns a function that ends it */
  listen(port: number, accept: (socket: GuestSocket) => void): () => void {
    this.#listeners.set(port, accept);
    this.#port()?.({ type: "listen", port });
    return () => {
      this.#listeners.delete(port);
      this.#port()?.({ type: "unlisten", port });
    };
  }

  /** The last trace records of the device side. */
  async traceRecords(o: WaitOptions = {}): Promise<readonly TraceRecord[]> {
    const answer = await this.ask<Extract<FromDevices, { type: "trace-answer" }>>(
      "the trace",
      o,
      (id) => ({ type: "trace", id }),
      "trace-answer",
    );
    return answer.records;
  }

  // ---- for the machine --------------------------------------------------------------------------------------------------
  /** A new device side, or a new machine on it: listeners are told to it again, connections are gone. */
  machineStarted(): void {
    this.#setLights({ vmbusVersion: undefined, services: [] });
    this.dropSockets();
    for (const port of this.#listeners.keys()) this.#port()?.({ type: "listen", port });
  }
  /** @internal */
  dropSockets(): void {
    for (const socket of [...this.#sockets.values()]) socket.closed("reset");
    this.#sockets.clear();
  }
  #setLights(lights: Lights): void {
    this.#lights = lights;
    for (const f of [...this.#lightListeners]) f(lights);
  }
  /** @internal */
  receive(m: FromDevices): void {
    switch (m.type) {
      case "lights":
        this.#setLights({
          vmbusVersion: m.vmbusVersion,
          services: m.open,
        });
        break;
      case "shutdown-answer":
      case "status":
      case "disk-answer":
      case "network-answer":
      case "trace-answer":
        this.#answers.get(m.id)?.(m);
        break;
      case "problem":
        for (const f of [...this.#problemListeners]) f(m.text);
        break;
      case "socket-accepted": {
        const accept = this.#listeners.get(m.port);
        const port = this.#port();
        if (port === undefined) break;
        const socket = new GuestSocket(m.socket, m.peerPort, port, () => void this.#sockets.delete(m.socket));
        this.#sockets.set(m.socket, socket);
        if (accept === undefined) socket.destroy();
        else accept(socket);
        break;
      }
      case "socket-open":
        this.#sockets.get(m.socket)?.opened();
        break;
      case "socket-data":
        this.#sockets.get(m.socket)?.received(m.bytes);
        break;
      case "socket-ended":
        this.#sockets.get(m.socket)?.ended();
        break;
      case "socket-drain":
        this.#sockets.get(m.socket)?.drained(m.messages);
        break;
      case "socket-closed":
        this.#sockets.get(m.socket)?.closed(m.failure);
        break;
    }
  }
}

/** What the device side could not do: about a disk or the network, unless it is our own mistake. */
export function fromPlain(error: PlainError): VmError {
  const { code, message, hint } = error;
  if (error.about === "network") return networkFailure(error);
  if (error.about === "share") return new VmError(code as VmErrorCode, message, hint);
  return new VmError(code === "invariant" ? "failed" : code === "missing" ? "not-found" : "disk", message, hint);
}
