/** A machine's disks in Node: files opened once, shown to each boot's SCSI controller. */
import { createHash } from "node:crypto";
import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { RawDisk } from "../../disk/raw.js";
import type { GuestMemory } from "../../machine/guest-memory.js";
import { StorageController } from "../../services/storage/controller.js";
import type { StorageProblem } from "../../services/storage/target.js";
import type { Trace } from "../../trace/trace.js";
import type { DiskSpec } from "../../vm/device-messages.js";
import type { MachineDisks } from "../../vm/machine-disks.js";
import type { Offer } from "../../vmbus/device.js";
import { type NodeDiskFile, openDiskFile } from "./disk-file.js";
import { DiskFileError } from "./disk-file-error.js";

/** The synthetic controller's name: the same in every machine, so that guests keep their device names. */
const CONTROLLER = "4f1e3b6a-52c9-4e0d-8a35-0c6b1d2f7e90";
const LUNS = 64;
const IDENTITY_BYTES = 12;
const SECTOR = { disk: 512, dvd: 2048 } as const;

interface OpenDisk {
  readonly spec: DiskSpec;
  readonly file: NodeDiskFile;
  readonly disk: RawDisk;
  /** Twelve bytes that stay the same while the file stays where it is. */
  readonly identity: Uint8Array;
}

const PROBLEMS: Readonly<Record<StorageProblem["kind"], string>> = {
  "no-space": "the host has no room for what the guest writes: make room; the guest has got an error",
  "io-error": "the host could not read or write it: see the host's log; the guest has got an error",
  "read-only": "the guest tried to write, but it is read-only",
};

export interface MachineDisksOptions {
  readonly inline: boolean;
  readonly onProblem: (text: string) => void;
  /** A flush or a discard ended outside a turn of the device side: it has to have one, or the guest hears of it much later. */
  readonly onCompleted?: () => void;
}

class NodeDisks implements MachineDisks {
  readonly #o: MachineDisksOptions;
  readonly #disks = new Map<number, OpenDisk>();
  #controller: StorageController | undefined;

  constructor(o: MachineDisksOptions) {
    this.#o = o;
  }
  get device(): StorageController | undefined {
    return this.#controller;
  }
  open(spec: DiskSpec): number {
    let lun = 0;
    while (this.#disks.has(lun)) lun++;
    if (lun >= LUNS)
      throw new DiskFileError("too-many", `more than ${LUNS} disks`, "a controller has that many places");
    const path = resolve(spec.file);
    const file = openDiskFile(path, {
      readOnly: spec.readOnly || spec.kind === "dvd",
      anySize: spec.kind === "dvd",
      inline: this.#o.inline,
      ...(this.#o.onCompleted === undefined ? {} : { onCompleted: this.#o.onCompleted }),
      ...(spec.createBytes === undefined ? {} : { createBytes: spec.createBytes }),
    });
    const digest = createHash("sha256").update(realpathSync(path)).digest();
    this.#disks.set(lun, {
      spec,
      file,
      disk: new RawDisk(file, { logicalBlockBytes: SECTOR[spec.kind] }),
      identity: new Uint8Array(digest.subarray(0, IDENTITY_BYTES)),
    });
    return lun;
  }
  controller(memory: GuestMemory, trace: Trace): StorageController {
    const controller = new StorageController({
      instanceId: CONTROLLER,
      memory,
      trace,
      onProblem: ({ lun, kind, command }) =>
        this.#o.onProblem(`disk ${this.#disks.get(lun)?.spec.file ?? lun} (${command}): ${PROBLEMS[kind]}`),
    });
    this.#controller = controller;
    for (const lun of this.#disks.keys()) this.#show(lun);
    return controller;
  }
  #show(lun: number): void {
    const { spec, disk, identity } = this.#disks.get(lun)!;
    if (spec.kind === "dvd") this.#controller?.addDvd(lun, identity, disk);
    else this.#controller?.addDisk(lun, disk, identity);
  }
  offered(offer: Offer): void {
    this.#controller?.attach(offer);
  }
  get isBusy(): boolean {
    return this.#controller?.isBusy === true;
  }
  quiesce(done: () => void): void {
    if (this.#controller === undefined) done();
    else this.#controller.quiesce(done);
  }
  status(): ReturnType<MachineDisks["status"]> {
    return [...this.#disks].map(([lun, { spec }]) => ({
      lun,
      file: spec.file,
      counters: { ...this.#controller?.statistics(lun) },
    }));
  }
  async add(spec: DiskSpec): Promise<number> {
    const lun = this.open(spec);
    this.#show(lun);
    return lun;
  }
  async remove(lun: number): Promise<void> {
    const open = this.#disks.get(lun);
    if (open === undefined) throw new DiskFileError("not-found", `there is no disk at LUN ${lun}`, "see status()");
    this.#disks.delete(lun);
    await new Promise<void>((released) => {
      if (this.#controller === undefined) released();
      else this.#controller.remove(lun, released);
    });
    await this.#close(open);
  }
  async #close({ disk, file, spec }: OpenDisk): Promise<void> {
    if (!spec.readOnly) await new Promise<void>((done) => disk.flush(() => done()));
    file.close();
  }
  async close(): Promise<void> {
    for (const [lun, open] of [...this.#disks]) {
      this.#disks.delete(lun);
      await this.#close(open);
    }
  }
}

/** @throws DiskFileError for the first that cannot be opened; none stays open then */
export async function openMachineDisks(specs: readonly DiskSpec[], o: MachineDisksOptions): Promise<MachineDisks> {
  const disks = new NodeDisks(o);
  try {
    for (const spec of specs) disks.open(spec);
  } catch (error) {
    await disks.close();
    throw error;
  }
  return disks;
}
