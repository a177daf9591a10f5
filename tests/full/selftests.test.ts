/**
 * The kernel's own tests of what x86 owes to programs (tools/testing/selftests/x86, from the source of the guest's kernel series):
 * compiled here, run in debian:12.
 *
 *   ENLIGHTEN_LONG=1 node --test dist/tests/full/selftests.test.js
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { startDebian } from "../guests/guests.js";
import { BOOT_MS, sh, testFolder } from "../guests/hyperv-guest.js";
import { downloadPackage, needOnHost } from "./host-programs.js";

const SOURCE = "linux-source-6.1";
const TESTS = "tools/testing/selftests/x86";
/** Of the source, what the tests include. */
const PARTS = [TESTS, "tools/testing/selftests/kselftest.h", "arch/x86/include/asm/desc_defs.h"];

// as the Makefile there groups them
const BOTH =
  `single_step_syscall sysret_ss_attrs syscall_nt test_mremap_vdso check_initial_reg_state sigreturn iopl ioperm
  test_vsyscall mov_ss_trap sigtrap_loop syscall_arg_fault fsgsbase_restore sigaltstack ldt_gdt ptrace_syscall`.split(
    /\s+/,
  );
const ONLY_32 = "entry_from_vm86 test_syscall_vdso unwind_vdso test_FCMOV test_FCOMI test_FISTTP vdso_restorer".split(
  " ",
);
const ONLY_64 = "fsgsbase sysret_rip syscall_numbering corrupt_xstate_header amx".split(" ");
/** What is linked to a test. */
const MORE: Readonly<Record<string, string>> = {
  sysret_ss_attrs_64: "thunks.S",
  ptrace_syscall_32: "raw_syscall_helper_32.S",
  test_syscall_vdso_32: "thunks_32.S",
  check_initial_reg_state_32: "-Wl,-ereal_start",
  check_initial_reg_state_64: "-Wl,-ereal_start",
};
/** Static: the guest has no libraries. */
const FLAGS = "-O2 -g0 -std=gnu99 -pthread -w -no-pie -static -DCAN_BUILD_32 -DCAN_BUILD_64".split(" ");

/** What cannot pass, and why. */
const NOT_HERE: Readonly<Record<string, string>> = {
  amx_64: "AMX is not advertised, and the test fails where it is missing",
};

const programs = [
  ...[...BOTH, ...ONLY_64].map((name) => ({ name, bits: 64 })),
  ...[...BOTH, ...ONLY_32].map((name) => ({ name, bits: 32 })),
].map((p) => ({ ...p, program: `${p.name}_${p.bits}` }));

function build(folder: string): string {
  downloadPackage(SOURCE, folder);
  const [deb] = readdirSync(folder).filter((name) => name.endsWith(".deb"));
  const tree = join(folder, "tree");
  const out = join(folder, "out");
  mkdirSync(tree);
  mkdirSync(out);
  const unpack = `dpkg-deb --fsys-tarfile '${folder}/${deb}' | tar x -O ./usr/src/${SOURCE}.tar.xz | tar x -J --strip-components=1 -C '${tree}' ${PARTS.map((part) => `${SOURCE}/${part}`).join(" ")}`;
  execFileSync("bash", ["-o", "pipefail", "-c", unpack], { stdio: ["ignore", "inherit", "inherit"] });
  for (const { name, bits, program } of programs) {
    const more = MORE[program] === undefined ? [] : [MORE[program]];
    execFileSync(
      "gcc",
      [`-m${bits}`, ...FLAGS, "-o", join(out, program), `${name}.c`, ...more, "-lrt", "-ldl", "-lm"],
      {
        cwd: join(tree, TESTS),
        stdio: ["ignore", "inherit", "pipe"],
      },
    );
  }
  return out;
}

const skip = process.env.ENLIGHTEN_LONG === "1" ? false : "takes minutes: set ENLIGHTEN_LONG=1";

describe("the kernel's x86 selftests", { skip, timeout: 1_800_000 }, () => {
  let archive: Buffer;
  const folder = skip === false ? testFolder("selftests") : "";

  before(() => {
    needOnHost({ "gcc-multilib": "/usr/lib32/crt1.o", gcc: "gcc", "xz-utils": "xz" });
    const out = build(folder);
    execFileSync(
      "strip",
      programs.map(({ program }) => program),
      { cwd: out },
    );
    archive = execFileSync("tar", ["c", "-C", out, "."], { maxBuffer: 256 << 20 });
  });

  it("pass in debian:12", async (t) => {
    await using vm = await startDebian({ memoryMiB: 512 });
    await sh(vm, "mkdir /tests", BOOT_MS);
    const { exitCode, stderr } = await vm.exec("tar x -C /tests", { stdin: archive, timeoutMs: BOOT_MS });
    assert.equal(exitCode, 0, stderr);
    for (const { program } of programs) {
      const skipTest = NOT_HERE[program] ?? false;
      await t.test(program, { skip: skipTest }, async () => {
        const r = await vm.exec(`cd /tests && ./${program}`, { timeoutMs: BOOT_MS });
        assert.equal(r.exitCode, 0, `${r.stdout.slice(-4000)}\n${r.stderr}`);
      });
    }
    const { stdout: log } = await vm.exec("dmesg", { timeoutMs: BOOT_MS });
    assert.doesNotMatch(log, /BUG:|WARNING:|Call Trace|Oops/);
  });
});
