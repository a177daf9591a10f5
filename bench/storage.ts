/**
 * Disk requests in the guest for each CPU second of the host: 4 KiB O_DIRECT reads, and reading in pieces of 1 MiB, through hv_storvsc
 * here and through virtio-blk in QEMU (TCG), with the same kernel, userland and disk file.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm } from "../src/host/node/index.js";
import { readOptions } from "./options.js";
import { hasQemu, inQemu } from "./qemu-guest.js";

const HELP = `npm run bench -- storage [options]

Disk requests of a guest for each CPU second of this process, and in QEMU where it is installed.

      --no-qemu   here only
      --json FILE all figures, for programs`;
const options = { json: { type: "string" }, "no-qemu": { type: "boolean", default: false } } as const;
const { values } = readOptions(HELP, options);
const DISK_MIB = 256;
const SMALL_READS = 20_000;
const LARGE_READS = 1024;
const ROUNDS = 3;
const TESTS = [
  { name: "4 KiB O_DIRECT reads", bytes: 4096, count: SMALL_READS, unit: "reads/CPU s" },
  { name: "1 MiB O_DIRECT reads", bytes: 1 << 20, count: LARGE_READS, unit: "MB/CPU s" },
] as const;
const dd = (disk: string, bytes: number, count: number): string =>
  `dd if=${disk} of=/dev/null bs=${bytes} count=${count} iflag=direct 2>/dev/null || exit`;
/** The whole of a test: passes over the disk until `count` requests are done. */
const script = (disk: string, { bytes, count }: (typeof TESTS)[number]): string => {
  const perPass = Math.min(count, (DISK_MIB << 20) / bytes);
  return Array.from({ length: Math.ceil(count / perPass) }, () => dd(disk, bytes, perPass)).join("; ");
};
const rate = (test: (typeof TESTS)[number], seconds: number): number =>
  test.bytes === 4096 ? test.count / seconds : (test.count * test.bytes) / 1e6 / seconds;
const median = (list: readonly number[]): number => [...list].sort((a, b) => a - b)[list.length >> 1]!;

/** CPU seconds of each test, by rounds; for ours, what the host side took of it. */
type Result = readonly (readonly number[])[];
const hostSideUs: number[][] = TESTS.map(() => []);

async function ours(disk: string): Promise<Result> {
  const vm = await createVm({ image: "debian:12", disks: [{ file: disk, readOnly: true }] });
  await vm.start();
  await vm.exec("true");
  const cpu = (): number => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  };
  const result = TESTS.map(() => [] as number[]);
  for (let round = 0; round < ROUNDS; round++)
    for (const [i, test] of TESTS.entries()) {
      const idle = await vm.integration.status();
      const before = cpu();
      const { exitCode } = await vm.exec(script("/dev/sda", test));
      if (exitCode !== 0) throw new Error(`dd ended with ${exitCode}`);
      result[i]!.push(cpu() - before);
      const { busyMs } = await vm.integration.status();
      hostSideUs[i]!.push(((busyMs! - idle.busyMs!) * 1000) / test.count);
    }
  await vm.kill();
  return result;
}

const qemu = (disk: string): Promise<Result> =>
  inQemu({
    modules: ["virtio_blk"],
    devices: ["-drive", `file=${disk},if=virtio,format=raw,readonly=on`],
    prepare: [],
    tests: TESTS.map((test) => script("/dev/vda", test)),
    rounds: ROUNDS,
  }).then((tests) => tests.map((rounds) => rounds.map(({ cpuSeconds }) => cpuSeconds)));

const folder = await mkdtemp(join(tmpdir(), "enlighten-storage-"));
try {
  const disk = join(folder, "disk.raw");
  const block = Buffer.alloc(1 << 20, "enlighten ");
  await writeFile(disk, Buffer.concat(Array.from({ length: DISK_MIB }, () => block)));
  const here = await ours(disk);
  const there = !values["no-qemu"] && hasQemu() ? await qemu(disk) : undefined;
  const rows = TESTS.map((test, i) => {
    const mine = rate(test, median(here[i]!));
    const theirs = there === undefined || there[i]!.length === 0 ? undefined : rate(test, median(there[i]!));
    return {
      test: test.name,
      unit: test.unit,
      enlighten: mine,
      qemuTcgVirtioBlk: theirs,
      ratio: theirs && mine / theirs,
    };
  });
  console.log(`${"".padEnd(24)}${"enlighten".padStart(12)}${"QEMU TCG".padStart(12)}${"ratio".padStart(9)}`);
  for (const { test, unit, enlighten, qemuTcgVirtioBlk, ratio } of rows)
    console.log(
      `${test.padEnd(24)}${enlighten.toFixed(0).padStart(12)}${(qemuTcgVirtioBlk?.toFixed(0) ?? "-").padStart(12)}${(ratio?.toFixed(2) ?? "-").padStart(9)}  ${unit}`,
    );
  console.log("device side (VMBus, SCSI, file), all requests in a row, a request:");
  TESTS.forEach(
    ({ name }, i) => void console.log(`${name.padEnd(24)}${median(hostSideUs[i]!).toFixed(1).padStart(12)}  us`),
  );
  if (values.json !== undefined)
    await writeFile(values.json, `${JSON.stringify({ rows, here, there, hostSideUs }, null, 2)}\n`);
} finally {
  await rm(folder, { recursive: true });
}
