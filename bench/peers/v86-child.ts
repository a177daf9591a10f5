/**
 * v86 with its first serial port on standard output: a machine of the comparison, in a process of its own.
 *
 *   node dist/bench/peers/v86-child.js LIBRARY WASM BIOS VGABIOS KERNEL INITRD MEMORYMIB COMMANDLINE
 */
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

/** What is used here of what v86's typings declare; it is not a dependency. */
interface Emulator {
  add_listener(event: "serial0-output-byte", listener: (byte: number) => void): void;
}
interface Library {
  readonly V86: new (options: Readonly<Record<string, unknown>>) => Emulator;
}

const [library, wasm, bios, vgaBios, kernel, initrd, memory, commandLine] = process.argv.slice(2);
const { V86 } = (await import(pathToFileURL(library!).href)) as Library;
const file = (path: string) => ({ buffer: new Uint8Array(readFileSync(path)).buffer });
const emulator = new V86({
  wasm_path: wasm,
  bios: file(bios!),
  vga_bios: file(vgaBios!),
  bzimage: file(kernel!),
  initrd: file(initrd!),
  cmdline: commandLine,
  memory_size: Number(memory) << 20,
  vga_memory_size: 2 << 20,
  autostart: true,
});
let line = "";
emulator.add_listener("serial0-output-byte", (byte) => {
  line += String.fromCharCode(byte);
  if (byte !== 10) return;
  // it has no way to power itself off
  const isLast = line.startsWith("GUESTBENCH done");
  process.stdout.write(line, () => isLast && process.exit(0));
  line = "";
});
