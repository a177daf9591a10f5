/** For tests: a disk in memory that can be made to fail, and to take its time. */
import { DiskStatus } from "../../disk/disk.js";
import { MemoryDisk } from "../../disk/memory.js";

export class FailingDisk extends MemoryDisk {
  failRead: DiskStatus = DiskStatus.ok;
  failWrite: DiskStatus = DiskStatus.ok;
  failFlush: DiskStatus = DiskStatus.ok;
  /** Flushing and zeroing wait for `go`. */
  slow = false;
  /** What has been asked, in order. */
  readonly log: string[] = [];
  readonly held: (() => void)[] = [];
  override read(offset: number, into: Uint8Array, at: number, length: number): DiskStatus {
    return this.failRead || super.read(offset, into, at, length);
  }
  override write(offset: number, from: Uint8Array, at: number, length: number): DiskStatus {
    this.log.push(`write ${offset} ${length}`);
    return this.failWrite || super.write(offset, from, at, length);
  }
  override flush(done: (status: DiskStatus) => void): void {
    this.log.push("flush");
    this.#hold(() => done(this.failFlush));
  }
  override discard(offset: number, length: number, done: (status: DiskStatus) => void): void {
    this.log.push(`discard ${offset} ${length}`);
    this.#hold(() => super.writeZeroes(offset, length, (s) => done(this.failWrite || s)));
  }
  override writeZeroes(offset: number, length: number, done: (status: DiskStatus) => void): void {
    this.log.push(`zero ${offset} ${length}`);
    this.#hold(() => super.writeZeroes(offset, length, (s) => done(this.failWrite || s)));
  }
  go(): void {
    for (const f of this.held.splice(0)) f();
  }
  #hold(f: () => void): void {
    if (this.slow) this.held.push(f);
    else f();
  }
}
