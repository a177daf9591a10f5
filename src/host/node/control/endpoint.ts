/** Control connections in Node: a machine's socket, and the way to it. */
import { chmodSync, rmSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { ControlClient } from "../../../control/client.js";
import type { Transport } from "../../../control/connection.js";
import type { ControlServer } from "../../../control/server.js";
import { VmError } from "../../../vm/vm-error.js";

/** At most so many at a time: what is there beyond them waits. */
const MAX_CONNECTIONS = 256;
/** A connection that has this much to take and does not take it is cut off. */
const MAX_UNSENT_BYTES = 64 << 20;

function transportOf(socket: Socket): Transport {
  return {
    send(bytes) {
      if (socket.writableEnded || socket.destroyed) return;
      socket.write(bytes);
      if (socket.writableLength > MAX_UNSENT_BYTES) socket.destroy();
    },
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
}

/** Listens for a machine. @returns what stops it, when answers are out */
export async function listenForControl(path: string, control: ControlServer): Promise<() => Promise<void>> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    const connection = control.accept(transportOf(socket));
    socket.on("data", (data) => {
      try {
        connection.received(data);
      } catch (error) {
        // whatever a peer says must not end the machine
        process.stderr.write(`enlighten: control: ${error instanceof Error ? error.stack : error}\n`);
        connection.destroy();
      }
    });
    // one who has said goodbye waits for nothing
    socket.on("end", () => socket.end());
    socket.on("error", () => socket.destroy());
    socket.on("close", () => {
      sockets.delete(socket);
      connection.closed();
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  if (process.platform !== "win32") rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(path, resolve);
  });
  if (process.platform !== "win32") chmodSync(path, 0o600);
  return async () => {
    server.close();
    // what a peer does not take of the last answers within this time is lost
    await Promise.race([control.answered(), new Promise<void>((resolve) => setTimeout(resolve, CLOSE_MS).unref())]);
    control.close();
    await Promise.all(
      [...sockets].map(
        (socket) =>
          new Promise<void>((resolve) => {
            if (socket.closed) return resolve();
            socket.once("close", resolve);
            setTimeout(() => {
              socket.destroy();
              resolve();
            }, CLOSE_MS).unref();
          }),
      ),
    );
  };
}
const CLOSE_MS = 1000;
/** A process that does not say who it is within this time stands still. */
export const GREETING_MS = 5000;

/**
 * Connects to a machine.
 * @param explain what there is to say when the connection goes
 * @throws VmError when nobody answers
 */
export async function connectToControl(
  path: string,
  explain: (doing: string) => Promise<Error>,
  timeoutMs = GREETING_MS,
): Promise<ControlClient> {
  const socket = createConnection(path);
  const client = new ControlClient(transportOf(socket), {
    setTimer(ms, fire) {
      const timer = setTimeout(fire, ms);
      return () => clearTimeout(timer);
    },
    explain,
  });
  socket.on("data", (data) => client.received(data));
  socket.on("error", () => socket.destroy());
  socket.on("end", () => socket.destroy());
  socket.on("close", () => client.gone());
  let timer: NodeJS.Timeout | undefined;
  try {
    await Promise.race([
      client.ready,
      new Promise<never>((_, reject) => {
        timer = setTimeout(
          () =>
            reject(
              new VmError(
                "timeout",
                `the machine's process has not answered within ${timeoutMs / 1000} s`,
                "is it stopped?",
              ),
            ),
          timeoutMs,
        );
      }),
    ]);
    return client;
  } catch (error) {
    client.close();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
