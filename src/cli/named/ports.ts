/** `enlighten publish NAME PORTS`, `enlighten unpublish NAME PORT`. */
import { connect, openRegistry } from "./find.js";

const PATIENCE_MS = 10_000;

export async function publish(name: string, port: string): Promise<number> {
  const client = await connect(openRegistry(), name, "publishing a port");
  try {
    const { host, guest, protocol } = await client.ask("publish", { port }, { timeoutMs: PATIENCE_MS });
    process.stdout.write(`${host} leads to ${guest}${protocol === "udp" ? " (udp)" : ""}\n`);
    return 0;
  } finally {
    client.close();
  }
}
export async function unpublish(name: string, port: number, protocol: "tcp" | "udp"): Promise<number> {
  const client = await connect(openRegistry(), name, "taking a port back");
  try {
    await client.ask("unpublish", { port, protocol }, { timeoutMs: PATIENCE_MS });
    return 0;
  } finally {
    client.close();
  }
}
