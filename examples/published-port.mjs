/**
 * A job as a continuous integration has it: a guest, the files that are tested copied into it, a server, a port of this host that
 * leads to it, requests from here, and the server's log as what is kept.
 *
 *   node published-port.mjs
 */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm } from "enlighten";

const folder = await mkdtemp(join(tmpdir(), "published-port-"));
await writeFile(join(folder, "index.html"), "hello from the guest\n");
const vm = await createVm({ image: "debian:12", memoryMiB: 256 });
try {
  await vm.start();
  await vm.copyIn(`${folder}/.`, "/srv", { timeoutMs: 120_000 });
  const server = await vm.spawn(["sh", "-c", "httpd -f -v -p 80 -h /srv 2>/tmp/log"]);
  // port 0: one that is free; a connection waits until the server in the guest listens, or is refused
  const { host } = await vm.network.publish("0:80");
  let answer;
  for (let tries = 0; answer === undefined && tries < 100; tries++)
    answer = await fetch(`http://${host}/`).catch(() => new Promise((resolve) => void setTimeout(resolve, 100)));
  if (answer === undefined) throw new Error("the server does not come up");
  console.log(`${answer.status} ${(await answer.text()).trim()}`);
  console.log(`${(await fetch(`http://${host}/missing`)).status} for what is not there`);
  server.kill("SIGTERM");
  await vm.copyOut("/tmp/log", join(folder, "log"), { timeoutMs: 20_000 });
  const lines = (await readFile(join(folder, "log"), "utf8")).trim().split("\n");
  console.log(`the server's log has ${lines.filter((line) => line.includes("response:")).length} responses`);
} finally {
  await vm.kill();
  await rm(folder, { recursive: true });
}
