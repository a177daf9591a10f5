/** A small signed Debian archive made in memory, so that the whole chain is tested without a network. */
import { createHash } from "node:crypto";
import { createCleartextMessage, generateKey, readPrivateKey, sign } from "openpgp";
import { concatBytes, encodeUtf8 } from "../../src/image/byte-reader.js";
import { crc32 } from "../../src/image/checksum.js";
import { ImageError } from "../../src/image/errors.js";
import type { Archive, FetchOptions, PackageSource } from "../../src/image/package-source.js";

export const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

const u32 = (value: number): Uint8Array => Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);

/** An xz file whose LZMA2 data is stored, not packed: valid for any reader, and needs no packer. */
export function storedXz(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const CHUNK = 65536;
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < data.length; at += CHUNK) {
    const part = data.subarray(at, at + CHUNK);
    const size = part.length - 1;
    chunks.push(Uint8Array.of(at === 0 ? 1 : 2, size >> 8, size), part);
  }
  const packed = concatBytes([...chunks, Uint8Array.of(0)]);
  const variable = (value: number): number[] =>
    value < 128 ? [value] : [(value % 128) | 0x80, ...variable(Math.floor(value / 128))];
  const flags = Uint8Array.of(0, 1);
  const head = Uint8Array.of(2, 0, 0x21, 1, 22, 0, 0, 0);
  const records = Uint8Array.from([0, 1, ...variable(12 + packed.length + 4), ...variable(data.length)]);
  const index = concatBytes([records, new Uint8Array(-records.length & 3)]);
  const footer = concatBytes([u32((index.length + 4) / 4 - 1), flags]);
  return concatBytes([
    Uint8Array.of(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0),
    flags,
    u32(crc32(flags)),
    head,
    u32(crc32(head)),
    packed,
    new Uint8Array(-packed.length & 3),
    u32(crc32(data)),
    index,
    u32(crc32(index)),
    u32(crc32(footer)),
    footer,
    encodeUtf8("YZ"),
  ]);
}

export interface TestFile {
  readonly path: string;
  readonly data?: Uint8Array | string;
  readonly link?: string;
}

const bytesOf = (data: Uint8Array | string | undefined): Uint8Array =>
  typeof data === "string" ? encodeUtf8(data) : (data ?? new Uint8Array(0));

export function tarOf(files: readonly TestFile[]): Uint8Array {
  const blocks = files.flatMap(({ path, data, link }) => {
    const body = bytesOf(data);
    const header = new Uint8Array(512);
    const put = (at: number, text: string): void => header.set(encodeUtf8(text), at);
    put(0, `./${path}`);
    put(100, "0000755\0");
    put(124, `${body.length.toString(8).padStart(11, "0")}\0`);
    put(148, "        ");
    put(156, link === undefined ? "0" : "2");
    put(157, link ?? "");
    put(257, "ustar\x0000");
    const sum = header.reduce((total, byte) => total + byte, 0);
    put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
    return [header, body, new Uint8Array(-body.length & 511)];
  });
  return concatBytes([...blocks, new Uint8Array(1024)]);
}

export function arOf(members: readonly { name: string; data: Uint8Array }[]): Uint8Array<ArrayBuffer> {
  const parts = members.flatMap(({ name, data }) => {
    const header = `${name.padEnd(16)}${"0".padEnd(12)}${"0".padEnd(6)}${"0".padEnd(6)}${"100644".padEnd(8)}${String(data.length).padEnd(10)}\`\n`;
    return [encodeUtf8(header), data, new Uint8Array(data.length & 1).fill(10)];
  });
  return concatBytes([encodeUtf8("!<arch>\n"), ...parts]);
}

export function debOf(control: string, files: readonly TestFile[]): Uint8Array<ArrayBuffer> {
  return arOf([
    { name: "debian-binary", data: encodeUtf8("2.0\n") },
    { name: "control.tar", data: tarOf([{ path: "control", data: control }]) },
    { name: "data.tar.xz", data: storedXz(tarOf(files)) },
  ]);
}

/** A 64-bit relocatable ELF with nothing but a .modinfo section. */
export function moduleOf(fields: Record<string, string>): Uint8Array<ArrayBuffer> {
  const info = encodeUtf8(
    Object.entries(fields)
      .map(([key, value]) => `${key}=${value}\0`)
      .join(""),
  );
  const names = encodeUtf8("\0.modinfo\0.shstrtab\0");
  const out = new Uint8Array(64 + info.length + names.length + 3 * 64);
  const view = new DataView(out.buffer);
  out.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 1, true);
  view.setUint16(18, 62, true);
  const table = 64 + info.length + names.length;
  view.setUint32(40, table, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, 3, true);
  view.setUint16(62, 2, true);
  out.set(info, 64);
  out.set(names, 64 + info.length);
  for (const [i, name, type, offset, size] of [
    [1, 1, 1, 64, info.length],
    [2, 10, 3, 64 + info.length, names.length],
  ] as const) {
    view.setUint32(table + i * 64, name, true);
    view.setUint32(table + i * 64 + 4, type, true);
    view.setUint32(table + i * 64 + 24, offset, true);
    view.setUint32(table + i * 64 + 32, size, true);
  }
  return out;
}

export interface TestPackage {
  readonly name: string;
  readonly version: string;
  readonly depends?: string;
  /** More fields of its control file: "Essential: yes\n". */
  readonly fields?: string;
  readonly files?: readonly TestFile[];
}

const VERSION = "6.1.0-7-cloud-amd64";
const moduleAt = (folder: string, name: string, depends: string): TestFile => ({
  path: `lib/modules/${VERSION}/kernel/${folder}/${name}.ko`,
  data: moduleOf({ name: name.replaceAll("-", "_"), depends, vermagic: VERSION, alias: `vmbus:${name}` }),
});

/** What debian:12 is made of, in miniature; the security archive has the newer kernel. */
export const PACKAGES: Record<Archive, TestPackage[]> = {
  main: [
    { name: "linux-image-cloud-amd64", version: "6.1.5-1", depends: "linux-image-6.1.0-5-cloud-amd64 (= 6.1.5-1)" },
    { name: "busybox-static", version: "1:1.35.0-4", files: [{ path: "bin/busybox", data: "#!busybox" }] },
    {
      name: "base-files",
      version: "12.4",
      files: [
        { path: "etc/debian_version", data: "12.7\n" },
        { path: "usr/lib/os-release", data: "ID=debian\n" },
        { path: "etc/os-release", link: "../usr/lib/os-release" },
      ],
    },
    { name: "hyperv-daemons", version: "6.1.5-1", files: [{ path: "usr/sbin/hv_kvp_daemon", data: "#!daemon" }] },
  ],
  security: [
    { name: "linux-image-cloud-amd64", version: "6.1.7-1", depends: "linux-image-6.1.0-7-cloud-amd64 (= 6.1.7-1)" },
    {
      name: "linux-image-6.1.0-7-cloud-amd64",
      version: "6.1.7-1",
      files: [
        { path: `boot/vmlinuz-${VERSION}`, data: "a kernel" },
        moduleAt("drivers/hv", "hv_vmbus", ""),
        moduleAt("drivers/scsi", "scsi_mod", ""),
        moduleAt("drivers/scsi", "hv_storvsc", "scsi_mod,hv_vmbus"),
        moduleAt("drivers/input/serio", "hyperv-keyboard", "hv_vmbus"),
        moduleAt("fs/fat", "vfat", "fat"),
        moduleAt("fs/fat", "fat", ""),
        moduleAt("net", "unrelated", ""),
        { path: `lib/modules/${VERSION}/modules.builtin`, data: "kernel/fs/ext4/ext4.ko\n" },
      ],
    },
  ],
};

const SUITES: Record<Archive, string> = { main: "bookworm", security: "bookworm-security" };

/** A mirror whose files a test may change, and that counts what is asked of it. */
export class SyntheticMirror implements PackageSource {
  readonly name = "synthetic mirror";
  readonly files = new Map<string, Uint8Array>();
  readonly requests: string[] = [];
  isDown = false;
  #publicKey = "";

  static async create(
    validUntil?: string,
    packages: Readonly<Record<Archive, readonly TestPackage[]>> = PACKAGES,
  ): Promise<SyntheticMirror> {
    const mirror = new SyntheticMirror();
    const pair = await generateKey({ userIDs: [{ name: "test archive" }], format: "armored" });
    mirror.#publicKey = pair.publicKey;
    const signingKeys = await readPrivateKey({ armoredKey: pair.privateKey });
    for (const archive of ["main", "security"] as const) {
      const paragraphs = packages[archive].map(({ name, version, depends, fields, files }) => {
        const control = `Package: ${name}\nVersion: ${version}\nArchitecture: amd64\n${depends === undefined ? "" : `Depends: ${depends}\n`}${fields ?? ""}`;
        const deb = debOf(control, files ?? []);
        const path = `pool/${name}_${version.replace(/^\d+:/, "")}_amd64.deb`;
        mirror.files.set(`${archive}/${path}`, deb);
        return `${control}Filename: ${path}\nSize: ${deb.length}\nSHA256: ${hashOf(deb)}\n`;
      });
      const index = storedXz(encodeUtf8(paragraphs.join("\n")));
      const suite = SUITES[archive];
      mirror.files.set(`${archive}/dists/${suite}/main/binary-amd64/Packages.xz`, index);
      const release = [
        "Origin: Debian",
        `Codename: ${suite}`,
        ...(validUntil === undefined ? [] : [`Valid-Until: ${validUntil}`]),
        "SHA256:",
        ` ${hashOf(index)} ${index.length} main/binary-amd64/Packages.xz`,
        "",
      ].join("\n");
      const message = await createCleartextMessage({ text: release });
      mirror.files.set(`${archive}/dists/${suite}/InRelease`, encodeUtf8(await sign({ message, signingKeys })));
    }
    return mirror;
  }

  async fetch(archive: Archive, path: string, options: FetchOptions = {}): Promise<Uint8Array> {
    options.signal?.throwIfAborted();
    this.requests.push(`${archive}/${path}`);
    if (this.isDown) throw new ImageError("network", "the network is down", "check the network");
    const bytes = this.files.get(`${archive}/${path}`);
    if (bytes === undefined) throw new ImageError("not-found", `${path} does not exist`, "use another mirror");
    options.onBytes?.(bytes.length);
    return bytes;
  }

  keyring = async (): Promise<Uint8Array> => encodeUtf8(this.#publicKey);
}
