/**
 * An ISO 9660 image (ECMA-119, level 1 names) with files in its root folder, written as the files come: the folder and the
 * descriptors, which need all sizes, are written last, though the descriptors stand first. It is how a guest gets many files at once.
 */
import { encodeUtf8 } from "./byte-reader.js";

const SECTOR = 2048;
const DESCRIPTORS = 16;
const PATH_TABLES = 18; // after the volume's and the terminating descriptor: one little-endian, one big-endian
const FIRST_DATA = 20;
const IS_FOLDER = 2;

/** Puts bytes at an offset of the image. */
export type ImageSink = (offset: number, bytes: Uint8Array) => Promise<void>;

interface Placed {
  /** As bytes, one a character. */
  readonly name: string;
  readonly sector: number;
  readonly bytes: number;
}

const both16 = (view: DataView, at: number, value: number): void => {
  view.setUint16(at, value, true);
  view.setUint16(at + 2, value);
};
const both32 = (view: DataView, at: number, value: number): void => {
  view.setUint32(at, value, true);
  view.setUint32(at + 4, value);
};

/** 9.1: a directory record. */
function record({ name: text, sector, bytes }: Placed, flags: number): Uint8Array {
  const name = encodeUtf8(text);
  const length = 33 + name.length + (name.length % 2 === 0 ? 1 : 0);
  const out = new Uint8Array(length);
  const view = new DataView(out.buffer);
  out[0] = length;
  both32(view, 2, sector);
  both32(view, 10, bytes);
  out.set([100, 1, 1, 0, 0, 0, 0], 18); // 1 January 2000: what the guest makes of it has times of its own
  out[25] = flags;
  both16(view, 28, 1);
  out[32] = name.length;
  out.set(name, 33);
  return out;
}

export class IsoWriter {
  readonly #sink: ImageSink;
  readonly #files: Placed[] = [];
  #next = FIRST_DATA;

  constructor(sink: ImageSink) {
    this.#sink = sink;
  }

  /** @param name level 1: "NAME.EXT", 8 and 3 characters of A-Z, 0-9 and _; Linux shows it in lower case */
  async add(name: string, parts: readonly Uint8Array[]): Promise<void> {
    if (!/^[A-Z0-9_]{1,8}\.[A-Z0-9_]{1,3}$/.test(name)) throw new Error(`"${name}" is no ISO 9660 level 1 name`);
    const sector = this.#next;
    let bytes = 0;
    for (const part of parts) {
      await this.#sink(sector * SECTOR + bytes, part);
      bytes += part.length;
    }
    if (bytes >= 2 ** 32) throw new Error(`${name} is too large for an ISO 9660 image`);
    this.#files.push({ name: `${name};1`, sector, bytes });
    this.#next += Math.ceil(bytes / SECTOR);
  }

  /** @returns the image's size in bytes */
  async finish(label: string): Promise<number> {
    const sector = this.#next;
    const sorted = [...this.#files].sort((a, b) => (a.name < b.name ? -1 : 1));
    // No record crosses a sector's end.
    const places: number[] = [];
    let at = 2 * 34;
    const records = sorted.map((file) => record(file, 0));
    for (const { length } of records) {
      if ((at % SECTOR) + length > SECTOR) at = Math.ceil(at / SECTOR) * SECTOR;
      places.push(at);
      at += length;
    }
    const folderBytes = Math.ceil(at / SECTOR) * SECTOR;
    const folder = new Uint8Array(folderBytes);
    const self = (name: number): Placed => ({ name: String.fromCharCode(name), sector, bytes: folderBytes });
    folder.set(record(self(0), IS_FOLDER), 0);
    folder.set(record(self(1), IS_FOLDER), 34);
    records.forEach((bytes, i) => void folder.set(bytes, places[i]!));
    const sectors = sector + folderBytes / SECTOR;

    const head = new Uint8Array((FIRST_DATA - DESCRIPTORS) * SECTOR);
    const view = new DataView(head.buffer);
    const text = (offset: number, value: string, length: number): void =>
      head.set(encodeUtf8(value.padEnd(length).slice(0, length)), offset);
    head[0] = 1; // 8.4: primary volume descriptor
    text(1, "CD001", 5);
    head[6] = 1;
    text(8, "", 32);
    text(40, label, 32);
    both32(view, 80, sectors);
    both16(view, 120, 1);
    both16(view, 124, 1);
    both16(view, 128, SECTOR);
    both32(view, 132, 10);
    view.setUint32(140, PATH_TABLES, true);
    view.setUint32(148, PATH_TABLES + 1);
    head.set(record(self(0), IS_FOLDER), 156);
    text(190, "", 623);
    for (const date of [813, 830, 847, 864]) text(date, "0000000000000000", 16);
    head[881] = 1;
    head[SECTOR] = 255; // 8.3: the end of the descriptors
    text(SECTOR + 1, "CD001", 5);
    head[SECTOR + 6] = 1;
    for (const [i, little] of [true, false].entries()) {
      const table = (PATH_TABLES + i - DESCRIPTORS) * SECTOR;
      head[table] = 1;
      view.setUint32(table + 2, sector, little);
      view.setUint16(table + 6, 1, little);
    }
    await this.#sink(DESCRIPTORS * SECTOR, head);
    await this.#sink(sector * SECTOR, folder);
    return sectors * SECTOR;
  }
}
