/** What stands at a LUN, as the controller sees it. */
import { DiskStatus } from "../../disk/disk.js";
import type { GuestMemory } from "../../machine/guest-memory.js";
import type { StorageRequest } from "./request.js";
import { SENSE_DATA_BYTES, Sense, writeSense } from "./scsi.js";

/** Counters of a LUN, since it was added. */
export interface StorageStatistics {
  reads: number;
  writes: number;
  bytesRead: number;
  bytesWritten: number;
  /** Flushes of the disk that were asked for: by command, by FUA, or because the write cache is off. */
  flushes: number;
  /** Ranges given back or zeroed. */
  discards: number;
  /** Commands that the medium failed. */
  errors: number;
}

export function newStatistics(): StorageStatistics {
  return { reads: 0, writes: 0, bytesRead: 0, bytesWritten: 0, flushes: 0, discards: 0, errors: 0 };
}

/** Something that the host's user should know: the guest was told an error. Once per LUN and kind. */
export interface StorageProblem {
  readonly lun: number;
  readonly kind: "no-space" | "io-error" | "read-only";
  /** The command that failed, for people: "WRITE(10)". */
  readonly command: string;
}

/** State of a target that a checkpoint keeps. */
export interface TargetState {
  /** Sense values, oldest first. */
  readonly unitAttentions: readonly number[];
  /** Disk. */
  readonly writeCache?: boolean;
  /** DVD. */
  readonly trayOpen?: boolean;
  readonly locked?: boolean;
  /** DVD: media event not yet told. */
  readonly mediaEvent?: number;
}

/** What a target asks of its controller. */
export interface TargetHost {
  readonly memory: GuestMemory;
  /** The medium failed a command. */
  problem(kind: StorageProblem["kind"], command: string): void;
  /** The guest should look at the LUN again. */
  changed(): void;
}

/** Tells of a failed operation of the disk. @returns the sense value for the guest */
export function diskFailed(
  host: TargetHost,
  statistics: StorageStatistics,
  status: DiskStatus,
  command: string,
  otherwise: number,
): number {
  statistics.errors++;
  switch (status) {
    case DiskStatus.noSpace:
      host.problem("no-space", command);
      return Sense.spaceAllocationFailed;
    case DiskStatus.readOnly:
      host.problem("read-only", command);
      return Sense.writeProtected;
    default:
      host.problem("io-error", command);
      return otherwise;
  }
}

export interface ScsiTarget {
  readonly statistics: StorageStatistics;
  /** Does it, and calls one of the request's ends exactly once: now or later. */
  execute(request: StorageRequest): void;
  /** A reset of LUN, bus or adapter: power-on settings, and the guest is told. */
  reset(): void;
  /** No more of it: what it watches is let go of. */
  detach(): void;
  save(): TargetState;
  restore(state: TargetState): void;
}

/**
 * Conditions that a guest is told at its next command (SAM-5, "Unit attention conditions"). Each of them is told once, however
 * often it came about.
 */
export class UnitAttentions {
  #pending: number[] = [];

  get any(): boolean {
    return this.#pending.length > 0;
  }
  add(sense: number): void {
    if (!this.#pending.includes(sense)) this.#pending.push(sense);
  }
  /** The oldest, which is thereby told; 0 when there is none. */
  take(): number {
    return this.#pending.shift() ?? 0;
  }
  save(): number[] {
    return [...this.#pending];
  }
  restore(pending: readonly number[]): void {
    this.#pending = [...pending];
  }
}

/** SPC-4, "REQUEST SENSE command": the oldest condition, which is thereby told. */
export function requestSense(request: StorageRequest, attentions: UnitAttentions): void {
  if ((request.cdb[1]! & 0x01) !== 0) {
    request.check(Sense.invalidFieldInCdb); // descriptor format
    return;
  }
  const data = new Uint8Array(SENSE_DATA_BYTES);
  writeSense(data, 0, attentions.take());
  request.goodWithData(data, request.cdb[4]!);
}
