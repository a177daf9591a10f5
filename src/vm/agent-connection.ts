/** A connection to the agent in the guest: for one command at a time, and then for another. */
import type { GuestSocket } from "./guest-socket.js";

export class AgentConnection {
  readonly #socket: GuestSocket;
  readonly #takeBack: () => boolean;
  #onData: ((data: Uint8Array) => void | Promise<void>) | undefined;
  #onGone: (() => void) | undefined;

  /** @param takeBack a command has done with it. @returns whether it is kept */
  constructor(socket: GuestSocket, takeBack: () => boolean) {
    this.#socket = socket;
    this.#takeBack = takeBack;
    socket.onData = (data) => {
      if (this.#onData !== undefined) return this.#onData(data);
      // nobody has asked for anything
      socket.destroy();
    };
    const gone = (): void => this.#onGone?.();
    socket.finished().then(gone, gone);
  }
  get isClosed(): boolean {
    return this.#socket.isClosed;
  }
  attend(onData: (data: Uint8Array) => void | Promise<void>, onGone: () => void): void {
    this.#onData = onData;
    this.#onGone = onGone;
  }
  write(data: Uint8Array): Promise<void> {
    return this.#socket.write(data);
  }
  /** The command has ended, and all its output has come. @param isKept the agent takes another on it */
  release(isKept: boolean): void {
    this.#onData = this.#onGone = undefined;
    if (this.isClosed || !isKept || !this.#takeBack()) this.#socket.end();
  }
  destroy(): void {
    this.#socket.destroy();
  }
}
