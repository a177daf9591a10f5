/**
 * Tests a driver: unloads and loads a module of the guest's kernel ten times, asks the device behind it whether the driver answers,
 * and looks for complaints in the kernel's log. The results are JSON; the exit code says whether all went well.
 *
 *   node test-driver-module.mjs [MODULE [TIMES]]
 */
import { createVm } from "enlighten";

const [module = "hv_utils", times = "10"] = process.argv.slice(2);
/** What each module's driver does for the host. */
const SERVICES = { hv_utils: ["heartbeat", "shutdown", "timesync"], hv_netvsc: ["network"], hv_storvsc: ["storage"] };
const services = SERVICES[module] ?? [];
const COMMAND = { timeoutMs: 60_000 };

/** Whether the driver answers one more of the heartbeats that the host sends every two seconds. */
async function heartbeatAnswers() {
  const { replies } = await vm.integration.heartbeat(COMMAND);
  for (let tries = 0; tries < 200; tries++) {
    if ((await vm.integration.heartbeat(COMMAND)).replies > replies) return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

const vm = await createVm({ image: "debian:12", memoryMiB: 256 });
const results = [];
try {
  await vm.start();
  await vm.integration.waitForLights(services, { timeoutMs: 120_000 });
  for (let round = 1; round <= Number(times); round++) {
    const mark = (await vm.exec("dmesg | wc -l", COMMAND)).stdout.trim();
    const { exitCode, stderr } = await vm.exec(`rmmod ${module} && modprobe ${module}`, COMMAND);
    if (exitCode === 0) await vm.integration.waitForLights(services, COMMAND);
    const answers = services.includes("heartbeat") ? await heartbeatAnswers() : undefined;
    const log = (await vm.exec(`dmesg | tail -n +$((${mark} + 1))`, COMMAND)).stdout;
    const complaints = log.split("\n").filter((line) => /\b(BUG|WARNING|Oops|error|failed)\b/i.test(line));
    results.push({ round, exitCode, stderr, answers, complaints });
  }
} finally {
  await vm.kill();
}
for (const result of results) console.log(JSON.stringify(result));
const bad = results.filter((r) => r.exitCode !== 0 || r.complaints.length > 0 || r.answers === false);
console.log(`${module}: ${results.length - bad.length} of ${results.length} rounds went well`);
process.exitCode = bad.length === 0 ? 0 : 1;
