/** Guest code from assembler text, by Debian's nasm: flat bytes and the addresses of the labels. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Assembled {
  readonly bytes: Uint8Array;
  readonly labels: Readonly<Record<string, number>>;
}

const cache = new Map<string, Assembled>();
let folder: string | undefined;

export function assemble(source: string, bits: 16 | 32 | 64, origin: number): Assembled {
  const text = `bits ${bits}\norg ${origin}\n${source}\n`;
  const known = cache.get(text);
  if (known !== undefined) return known;
  if (folder === undefined) {
    const made = (folder = mkdtempSync(join(tmpdir(), "enlighten-nasm-")));
    process.on("exit", () => rmSync(made, { recursive: true, force: true }));
  }
  const [input, output, map] = [join(folder, "in.asm"), join(folder, "out.bin"), join(folder, "out.map")];
  writeFileSync(input, `[map symbols ${map}]\n${text}`);
  try {
    execFileSync("nasm", ["-f", "bin", "-o", output, input], { stdio: "pipe" });
  } catch (error) {
    const { code, stderr } = error as NodeJS.ErrnoException & { stderr?: Buffer };
    if (code === "ENOENT")
      throw new Error(
        "these tests assemble their guest code with nasm, which is not here\n  try: apt-get install nasm",
      );
    throw new Error(`nasm: ${stderr?.toString() ?? String(error)}\n${text}`);
  }
  const labels: Record<string, number> = {};
  for (const [, address, name] of readFileSync(map, "utf8").matchAll(/^\s*([0-9A-F]+)\s+[0-9A-F]+\s+([\w.]+)\s*$/gm))
    labels[name!] = Number.parseInt(address!, 16);
  const result = { bytes: new Uint8Array(readFileSync(output)), labels };
  cache.set(text, result);
  return result;
}
