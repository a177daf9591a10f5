/** Connections of a guest's own programs: perl with the kernel's socket calls, and servers of the host for them. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { after } from "node:test";
import { PERL } from "./hyperv-guest.js";

/** `S` is connected to a port of the host, in perl; its socket calls are the kernel's, without modules. */
export const dial = (port: number, socket = "S"): string =>
  `socket(${socket}, 2, 1, 0) && connect(${socket}, pack("SnC4x8", 2, ${port}, 10, 0, 2, 2)) or die "$!"`;
export const perl = (body: string): string => `${PERL} -e '${body}'`;
/** All that comes by `S` goes to standard output. */
export const TAKE = "print $b while sysread(S, $b, 65536)";

/** A server on the host's loopback address. @returns its port */
export async function listening(serve: (socket: Socket) => void): Promise<number> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    serve(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return (server.address() as AddressInfo).port;
}
