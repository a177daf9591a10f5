/**
 * Hyper-V sockets between the device side and the API's thread: data as messages, with flow control in both directions. Towards
 * the API a socket stops reading its ring while too much has not been taken; the API sends no more than was acknowledged.
 */
import type { HvSocket, SocketEvents } from "../services/sockets/hv-socket.js";
import type { SocketService } from "../services/sockets/socket-service.js";
import type { FromDevices, ToDevices } from "./device-messages.js";

/** Bytes on their way to the API's thread and not taken there. */
const MAX_UNTAKEN = 1 << 20;
/** Sockets that the guest opened are numbered from here; those that the API opens, below, by it. */
const FIRST_ACCEPTED = 0x40000000;

interface Bridged {
  readonly socket: HvSocket;
  untaken: number;
  paused: boolean;
  /** Messages that have been written but not acknowledged. */
  unacknowledged: number;
}

export class SocketBridge {
  readonly #service: SocketService;
  readonly #post: (message: FromDevices, transfer?: readonly ArrayBuffer[]) => void;
  readonly #sockets = new Map<number, Bridged>();
  #nextAccepted = FIRST_ACCEPTED;

  constructor(service: SocketService, post: (message: FromDevices, transfer?: readonly ArrayBuffer[]) => void) {
    this.#service = service;
    this.#post = post;
  }
  receive(m: ToDevices): void {
    switch (m.type) {
      case "connect":
        this.#connect(m.socket, m.port);
        return;
      case "listen":
        this.#service.listen(m.port, (socket, peerPort) => {
          const id = this.#nextAccepted++;
          return this.#events(id, socket, () =>
            this.#post({ type: "socket-accepted", socket: id, port: m.port, peerPort }),
          );
        });
        return;
      case "unlisten":
        this.#service.unlisten(m.port);
        return;
      case "socket-data": {
        const bridged = this.#sockets.get(m.socket);
        if (bridged === undefined) return;
        bridged.unacknowledged++;
        if (bridged.socket.write(m.bytes)) this.#acknowledge(m.socket, bridged);
        return;
      }
      case "socket-end":
        this.#sockets.get(m.socket)?.socket.end();
        return;
      case "socket-destroy":
        this.#sockets.get(m.socket)?.socket.destroy();
        return;
      case "socket-taken": {
        const bridged = this.#sockets.get(m.socket);
        if (bridged === undefined) return;
        bridged.untaken -= m.bytes;
        if (!bridged.paused || bridged.untaken > MAX_UNTAKEN / 2) return;
        bridged.paused = false;
        bridged.socket.resume();
        return;
      }
    }
  }
  #connect(id: number, port: number): void {
    let socket: HvSocket | undefined;
    const events = this.#events(
      id,
      () => socket!,
      () => this.#post({ type: "socket-open", socket: id }),
    );
    socket = this.#service.connect(port, events);
    if (socket === undefined) this.#post({ type: "socket-closed", socket: id, failure: "refused" });
    else this.#sockets.set(id, { socket, untaken: 0, paused: false, unacknowledged: 0 });
  }
  #acknowledge(id: number, bridged: Bridged): void {
    const messages = bridged.unacknowledged;
    bridged.unacknowledged = 0;
    this.#post({ type: "socket-drain", socket: id, messages });
  }
  #events(id: number, socket: () => HvSocket, opened: () => void): SocketEvents {
    return {
      onOpen: () => {
        if (!this.#sockets.has(id))
          this.#sockets.set(id, { socket: socket(), untaken: 0, paused: false, unacknowledged: 0 });
        opened();
      },
      onData: (bytes) => {
        const bridged = this.#sockets.get(id);
        if (bridged === undefined) return;
        bridged.untaken += bytes.length;
        if (!bridged.paused && bridged.untaken > MAX_UNTAKEN) {
          bridged.paused = true;
          bridged.socket.pause();
        }
        this.#post({ type: "socket-data", socket: id, bytes }, [bytes.buffer]);
      },
      onEnd: () => this.#post({ type: "socket-ended", socket: id }),
      onDrain: () => {
        const bridged = this.#sockets.get(id);
        if (bridged !== undefined) this.#acknowledge(id, bridged);
      },
      onClose: (failure) => {
        this.#sockets.delete(id);
        this.#post({ type: "socket-closed", socket: id, failure });
      },
    };
  }
}
