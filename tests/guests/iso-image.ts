/** A small ISO 9660 image (ECMA-119) with files in its root folder, for hosts without a program that makes one. */

const SECTOR = 2048;
const FIRST = 16;

const both16 = (b: Buffer, at: number, n: number): void => {
  b.writeUInt16LE(n, at);
  b.writeUInt16BE(n, at + 2);
};
const both32 = (b: Buffer, at: number, n: number): void => {
  b.writeUInt32LE(n, at);
  b.writeUInt32BE(n, at + 4);
};
/** 9.1: a directory record. */
function record(name: Buffer, sector: number, bytes: number, isFolder: boolean): Buffer {
  const length = 33 + name.length + (name.length % 2 === 0 ? 1 : 0);
  const b = Buffer.alloc(length);
  b[0] = length;
  both32(b, 2, sector);
  both32(b, 10, bytes);
  b.set([124, 1, 1, 0, 0, 0, 0], 18); // 1 January 2024
  b[25] = isFolder ? 2 : 0;
  both16(b, 28, 1);
  b[32] = name.length;
  name.copy(b, 33);
  return b;
}
const padded = (text: string, length: number): Buffer => Buffer.from(text.padEnd(length, " "), "latin1");

/** @param files by names of level 1: "DATA.BIN"; the root folder must fit in one sector */
export function isoImage(label: string, files: Readonly<Record<string, Uint8Array>>): Buffer {
  const names = Object.keys(files).sort();
  const rootSector = FIRST + 4;
  let next = rootSector + 1;
  const placed = names.map((name) => {
    const bytes = files[name]!;
    const sector = next;
    next += Math.max(1, Math.ceil(bytes.length / SECTOR));
    return { name, bytes, sector };
  });
  const image = Buffer.alloc(next * SECTOR);
  const root = record(Buffer.from([0]), rootSector, SECTOR, true);

  const volume = image.subarray(FIRST * SECTOR);
  volume[0] = 1;
  volume.write("CD001", 1, "latin1");
  volume[6] = 1;
  padded("", 32).copy(volume, 8);
  padded(label, 32).copy(volume, 40);
  both32(volume, 80, next);
  both16(volume, 120, 1);
  both16(volume, 124, 1);
  both16(volume, 128, SECTOR);
  both32(volume, 132, 10);
  volume.writeUInt32LE(FIRST + 2, 140);
  volume.writeUInt32BE(FIRST + 3, 148);
  root.copy(volume, 156);
  padded("", 623).copy(volume, 190);
  for (const at of [813, 830, 847, 864]) volume.write("0000000000000000", at, "latin1");
  volume[881] = 1;
  image.set([255, ...Buffer.from("CD001"), 1], (FIRST + 1) * SECTOR);

  // path tables: the root alone
  for (const [sector, isLittle] of [
    [FIRST + 2, true],
    [FIRST + 3, false],
  ] as const) {
    const table = image.subarray(sector * SECTOR);
    table[0] = 1;
    if (isLittle) table.writeUInt32LE(rootSector, 2);
    else table.writeUInt32BE(rootSector, 2);
    if (isLittle) table.writeUInt16LE(1, 6);
    else table.writeUInt16BE(1, 6);
  }
  const entries = [root, record(Buffer.from([1]), rootSector, SECTOR, true)];
  for (const { name, bytes, sector } of placed) {
    entries.push(record(Buffer.from(`${name};1`, "latin1"), sector, bytes.length, false));
    image.set(bytes, sector * SECTOR);
  }
  Buffer.concat(entries).copy(image, rootSector * SECTOR);
  return image;
}
