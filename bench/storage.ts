/**
 * Disk requests in the guest for each CPU second of the host: 4 KiB O_DIRECT reads, and reading in pieces of 1 MiB, through hv_storvsc
 * here and through virtio-blk in QEMU (TCG), with the same kernel, userland and disk file.
 *
 *   npm run bench -- storage [--json FILE] [--no-qemu]
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { debianGuest } from "../src/host/node/guest.js";
import { createVm } from "../src/host/node/index.js";
import { cacheFolder } from "../src/host/node/package-cache.js";
import { readDeb } from "../src/image/deb.js";
import { execCpio, writeCpio } from "../src/image/index.js";

const { values } = parseArgs({ options: { json: { type: "string" }, "no-qemu": { type: "boolean", default: false } } });
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

/** The modules of virtio-blk, in load order, from the kernel package that the guest was made of. */
async function virtioModules(version: string): Promise<{ name: string; data: Uint8Array }[]> {
  const names = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk"];
  const folder = join(cacheFolder(process.env), "sha256");
  for (const shard of await readdir(folder))
    for (const file of await readdir(join(folder, shard))) {
      const bytes = new Uint8Array(await readFile(join(folder, shard, file)));
      if (bytes.length < 10e6 || new TextDecoder().decode(bytes.subarray(0, 7)) !== "!<arch>") continue;
      const { files } = await readDeb(bytes);
      const found = names.flatMap((name) => {
        const entry = files.find(({ path }) => path.includes(`/${version}/`) && path.endsWith(`/${name}.ko`));
        return entry?.kind === "file" ? [{ name, data: entry.data }] : [];
      });
      if (found.some(({ name }) => name === "virtio_blk")) return found;
    }
  throw new Error("the cache has no kernel package with virtio_blk: remove the cache folder and run again");
}

async function qemu(disk: string, folder: string): Promise<Result> {
  const guest = await debianGuest("debian:12");
  const files = await guest.load();
  const modules = await virtioModules(/Linux (\S+)/.exec(guest.description)![1]!);
  const steps = [
    ...modules.map(({ name }) => `insmod /bench/${name}.ko`),
    'say() { echo "$1" >/dev/ttyS0; }',
    ...Array.from({ length: ROUNDS }, () =>
      TESTS.map((test, i) => `say BEGIN${i}; ${script("/dev/vda", test)}; say END${i}`),
    ).flat(),
  ];
  const initrd = join(folder, "initrd");
  await writeFile(
    initrd,
    Buffer.concat([
      ...files.initrds,
      writeCpio([
        { kind: "directory", path: "bench", mode: 0o755 },
        ...modules.map(({ name, data }) => ({ kind: "file" as const, path: `bench/${name}.ko`, mode: 0o644, data })),
      ]),
      execCpio(steps.join("\n")),
    ]),
  );
  const kernel = join(folder, "vmlinuz");
  await writeFile(kernel, files.kernel);
  const serial = ["stdio", "null", "null", "null"].flatMap((s) => ["-serial", s]);
  const args = [
    "-accel",
    "tcg",
    "-cpu",
    "max",
    "-m",
    "512",
    "-display",
    "none",
    "-no-reboot",
    "-nodefaults",
    ...serial,
  ];
  const drive = ["-drive", `file=${disk},if=virtio,format=raw,readonly=on`];
  const child = spawn("qemu-system-x86_64", [
    ...args,
    ...drive,
    "-kernel",
    kernel,
    "-initrd",
    initrd,
    "-append",
    guest.commandLine,
  ]);
  const { stdout } = spawnSync("getconf", ["CLK_TCK"]);
  const ticks = Number(stdout.toString()) || 100;
  const cpu = async (): Promise<number> => {
    const fields = (await readFile(`/proc/${child.pid}/stat`, "utf8")).split(") ")[1]!.split(" ");
    return (Number(fields[11]) + Number(fields[12])) / ticks;
  };
  const result = TESTS.map(() => [] as number[]);
  const begun = TESTS.map(() => 0);
  let text = "";
  child.stderr.pipe(process.stderr);
  for await (const data of child.stdout) {
    text += String(data);
    const lines = text.split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      const match = /^(BEGIN|END)(\d)\r?$/.exec(line);
      if (match === null) continue;
      const i = Number(match[2]);
      if (match[1] === "BEGIN") begun[i] = await cpu();
      else result[i]!.push((await cpu()) - begun[i]!);
    }
  }
  return result;
}

const folder = await mkdtemp(join(tmpdir(), "enlighten-storage-"));
try {
  const disk = join(folder, "disk.raw");
  const block = Buffer.alloc(1 << 20, "enlighten ");
  await writeFile(disk, Buffer.concat(Array.from({ length: DISK_MIB }, () => block)));
  const here = await ours(disk);
  const hasQemu = !values["no-qemu"] && spawnSync("qemu-system-x86_64", ["--version"]).status === 0;
  const there = hasQemu ? await qemu(disk, folder) : undefined;
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
