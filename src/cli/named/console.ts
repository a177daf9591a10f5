/** `enlighten console NAME`: this terminal is the guest's console, until Ctrl-] and q. */
import { Stream } from "../../control/catalogue.js";
import { attachTerminal } from "../terminal.js";
import { connect, openRegistry } from "./find.js";

const SCREENFUL = 24;

export async function attach(name: string, o: { readonly readOnly?: boolean }): Promise<number> {
  const { stdin, stdout } = process;
  const client = await connect(openRegistry(), name, "its console was open");
  let restore = (): void => {};
  try {
    const session = client.begin("console", { lines: stdout.rows || SCREENFUL, input: o.readOnly !== true });
    if (stdin.isTTY === true) process.stderr.write(`enlighten: console of ${name}; Ctrl-] then q to leave it\n`);
    let isOpen = true;
    let detach = (): void => {};
    const detached = new Promise<"detached">((resolve) => {
      detach = () => resolve("detached");
    });
    session.read(Stream.output, (bytes) => new Promise<void>((resolve) => void stdout.write(bytes, () => resolve())));
    restore = attachTerminal(
      {
        isRunning: () => isOpen,
        write: (bytes) => {
          if (o.readOnly !== true) void session.write(Stream.input, bytes);
        },
        pressPowerButton: () => session.note({ powerButton: true }),
        ready: async () => {},
        // the machine is not this pipe's alone, and answers may still come
        ended: () => {},
      },
      {
        leave: "leave: the machine runs on",
        onQuit: detach,
        status: async () => {
          const s = await client.ask("summary", {}, { timeoutMs: 5000 });
          return `${name} · ${s.guest} · ${s.state} · up ${(s.upMs / 1000).toFixed(0)} s`;
        },
      },
    );
    const onSignal = (): void => detach();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, onSignal);
    const how = await Promise.race([detached, session.result.then((r) => r.how)]);
    isOpen = false;
    restore();
    if (stdin.isTTY === true)
      process.stderr.write(
        how === "detached" ? `\r\nenlighten: left ${name}\r\n` : `\r\nenlighten: ${name} has ended (${how})\r\n`,
      );
    return 0;
  } finally {
    restore();
    client.close();
  }
}
