/**
 * Runs a program that nobody has read, in a machine of its own: no network, 256 MiB of memory, half of one processor, ten seconds.
 *
 *   node run-untrusted.mjs [FILE]
 *
 * What it may spoil is a guest that is gone a moment later.
 */
import { readFile } from "node:fs/promises";
import { createVm, VmError } from "enlighten";

const SAMPLE = `
echo "I am $(id -un) on $(uname -n), and see $(ls / | wc -l) folders"
echo "networks: $(ls /sys/class/net | tr '\\n' ' ')"
rm -rf /usr /etc 2>/dev/null || echo "what I would destroy is not mine"
echo "I shall run for ever"
while :; do :; done
`;
const program = process.argv[2] === undefined ? SAMPLE : await readFile(process.argv[2], "utf8");

const vm = await createVm({ image: "debian:12", memoryMiB: 256, cpuLimit: 50, network: { mode: "none" } });
try {
  await vm.start();
  // the time is for the program: the guest is up before it begins to count
  await vm.exec(["true"], { timeoutMs: 120_000 });
  const child = await vm.spawn(["sh", "-c", program], {
    user: "nobody",
    cwd: "/tmp",
    onStdout: (data) => process.stdout.write(data),
    onStderr: (data) => process.stderr.write(data),
  });
  child.closeStdin();
  const late = setTimeout(() => child.kill("SIGKILL"), 10_000);
  const { exitCode, signal } = await child.exited;
  clearTimeout(late);
  console.log(signal === undefined ? `it ended with ${exitCode}` : `it was killed by signal ${signal}`);
} catch (error) {
  if (!(error instanceof VmError)) throw error;
  console.error(`${error.code}: ${error.message}\n${error.hint}`);
  process.exitCode = 1;
} finally {
  await vm.kill();
}
