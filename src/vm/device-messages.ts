/** The message catalogue between the API's thread and the device side (foundations: "message catalogue"), the same in Node and in a page. */

import type { PublishedPort, PublishSpec } from "../net/publish.js";
import type { FlowInfo, Refusal } from "../net/statistics.js";
import type { Impairments } from "../net/switch.js";
import type { ShutdownOutcome, ShutdownRequest } from "../services/integration/shutdown.js";
import type { TraceRecord } from "../trace/trace.js";
import type { TimeBase } from "./messages.js";

/** What is offered to the guest. Names are those of `--services`. */
export const SERVICE_NAMES = ["storage", "network", "heartbeat", "shutdown", "timesync", "sockets"] as const;
export type ServiceName = (typeof SERVICE_NAMES)[number];

/** A disk on the synthetic SCSI controller. */
export interface DiskSpec {
  /** Host path. */
  readonly file: string;
  readonly readOnly: boolean;
  /** Make it, of this size, when it is not there. */
  readonly createBytes?: number;
  readonly kind: "disk" | "dvd";
}

/** The cable of the network adapter, and the router at its other end. */
export interface NetworkSpec {
  /** The adapter's address, as "00:15:5d:01:02:03". */
  readonly mac: string;
  /** Whether there is a router; without one the adapter is not plugged in. */
  readonly isPluggedIn: boolean;
  /** What guests may reach (net/policy.ts); undefined: everything. */
  readonly allow?: readonly string[];
  /** Ports that listen from the start. */
  readonly publish: readonly PublishSpec[];
  /** Host path of a capture file. */
  readonly pcap?: string;
  /** The network is one that machines share: its cable comes with the thread. */
  readonly isShared?: boolean;
  /** For tests: what goes wrong on purpose. */
  readonly impairments?: Impairments;
}

/** A folder of the host that the guest mounts. */
export interface ShareSpec {
  /** Host path, absolute. */
  readonly directory: string;
  readonly readOnly: boolean;
  /** In the guest. */
  readonly mountPoint: string;
  /** Of what the guest looks at. */
  readonly cacheSeconds: number;
}

export interface DeviceSpec {
  readonly services: readonly ServiceName[];
  readonly disks: readonly DiskSpec[];
  /** Of the service "network". */
  readonly network?: NetworkSpec;
  readonly shares?: readonly ShareSpec[];
  /** Highest VMBus version: major << 16 | minor. */
  readonly maxVersion?: number;
  /** All records are sent, not only kept. */
  readonly trace: boolean;
}

/** Plain data. */
export interface DeviceSideState {
  readonly version: 1;
  readonly services: readonly ServiceName[];
  readonly vmbus: unknown;
  /** The network adapter's address. */
  readonly mac?: string;
  /** By name of the offer. */
  readonly devices: Readonly<Record<string, unknown>>;
  readonly deadlines: unknown;
}

export type ToDevices =
  /** A machine has been made: its memory. The one before is gone. */
  | {
      readonly type: "machine";
      readonly memory: SharedArrayBuffer | ArrayBuffer;
      readonly ramBytes: number;
      readonly time: TimeBase;
      readonly saved?: DeviceSideState;
    }
  | { readonly type: "shutdown"; readonly id: number; readonly request: ShutdownRequest }
  /** Sets the guest's clock. */
  | { readonly type: "synchronize" }
  | { readonly type: "connect"; readonly socket: number; readonly port: number }
  | { readonly type: "listen"; readonly port: number }
  | { readonly type: "unlisten"; readonly port: number }
  | { readonly type: "socket-data"; readonly socket: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "socket-end"; readonly socket: number }
  | { readonly type: "socket-destroy"; readonly socket: number }
  /** The receiver has taken so many bytes. */
  | { readonly type: "socket-taken"; readonly socket: number; readonly bytes: number }
  | { readonly type: "status"; readonly id: number }
  | { readonly type: "add-disk"; readonly id: number; readonly disk: DiskSpec }
  | { readonly type: "remove-disk"; readonly id: number; readonly lun: number }
  | { readonly type: "publish"; readonly id: number; readonly spec: PublishSpec }
  | { readonly type: "unpublish"; readonly id: number; readonly port: number }
  | { readonly type: "allow"; readonly id: number; readonly list: readonly string[] | undefined }
  /** The adapter's end of its cable, in or out. */
  | { readonly type: "link"; readonly id: number; readonly up: boolean }
  /** Finish what is in flight, then stand still and say `frozen`. */
  | { readonly type: "freeze" }
  /** Go on; with a time, virtual time goes on from there. */
  | { readonly type: "thaw"; readonly time?: TimeBase }
  | { readonly type: "trace"; readonly id: number }
  /** The machine is gone: put everything on the disks and let go of them. */
  | { readonly type: "close" };

export type FromDevices =
  | { readonly type: "shutdown-answer"; readonly id: number; readonly outcome: ShutdownOutcome }
  | { readonly type: "socket-open"; readonly socket: number }
  /** The guest connected to a port that we listen on. */
  | { readonly type: "socket-accepted"; readonly socket: number; readonly port: number; readonly peerPort: number }
  | { readonly type: "socket-data"; readonly socket: number; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "socket-ended"; readonly socket: number }
  /** So many messages of data have left, or as good as: the writer may send as many more. */
  | { readonly type: "socket-drain"; readonly socket: number; readonly messages: number }
  | { readonly type: "socket-closed"; readonly socket: number; readonly failure: "refused" | "reset" | undefined }
  /** VMBus is connected, or a device was opened or closed. */
  | { readonly type: "lights"; readonly vmbusVersion: string | undefined; readonly open: readonly string[] }
  | { readonly type: "status"; readonly id: number; readonly status: DeviceStatus }
  | { readonly type: "disk-answer"; readonly id: number; readonly lun?: number; readonly error?: PlainError }
  /** Of publish, unpublish (`done`: there was such a port) and allow. */
  | {
      readonly type: "network-answer";
      readonly id: number;
      readonly port?: PublishedPort;
      readonly done?: boolean;
      readonly error?: PlainError;
    }
  | { readonly type: "problem"; readonly text: string }
  | { readonly type: "frozen"; readonly state: DeviceSideState }
  | { readonly type: "trace"; readonly records: readonly TraceRecord[] }
  | { readonly type: "trace-answer"; readonly id: number; readonly records: readonly TraceRecord[] }
  | { readonly type: "started" }
  | { readonly type: "closed" }
  | { readonly type: "failed"; readonly error: PlainError };

/** An error that crosses threads: what a user sees of it. */
export interface PlainError {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  /** Default: a disk. */
  readonly about?: "network" | "share";
}

/** The network adapter, and the router behind it. */
export interface NetworkDeviceStatus {
  readonly mac: string;
  /** NVSP version that the guest's driver agreed on; "none" while there is no driver. */
  readonly protocol: string;
  /** The driver takes frames. */
  readonly isReady: boolean;
  /** The cable is plugged in. */
  readonly link: boolean;
  readonly mtu: number;
  readonly channels: number;
  readonly receiveSections: number;
  readonly freeReceiveSections: number;
  /** Frames and bytes as the adapter counts them, seen from the guest. */
  readonly sentFrames: number;
  readonly sentBytes: number;
  readonly receivedFrames: number;
  readonly receivedBytes: number;
  /** Frames that were lost, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  /** Undefined where the adapter is not plugged in, or the network is shared: that has its own status. */
  readonly nat: NatStatus | undefined;
}
/** A router. */
export interface NatStatus {
  readonly counters: Readonly<Record<string, number>>;
  /** Packets given up, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
  readonly flows: readonly FlowInfo[];
  readonly leases: readonly { readonly address: string; readonly mac: string; readonly hostName: string }[];
  readonly published: readonly PublishedPort[];
  /** The last that the allow list refused, each once. */
  readonly refused: readonly Refusal[];
}
/** A network that machines share. */
export interface SharedNetworkStatus {
  readonly machines: number;
  /** What the switch has done with frames. */
  readonly frames: Readonly<Record<string, number>>;
  readonly nat: NatStatus;
}

export interface ChannelStatus {
  readonly relid: number;
  readonly subIndex: number;
  readonly name: string;
  readonly state: string;
  /** What driver and device agreed on, "3.2"; undefined before, and where there is nothing to agree on. */
  readonly version: string | undefined;
  /** Bytes in the rings from and to the guest, and of the ring to it. */
  readonly inBytes: number;
  readonly outBytes: number;
  readonly ringBytes: number;
  readonly packetsIn: number;
  readonly packetsOut: number;
  /** What the guest did wrong last. */
  readonly problem: string | undefined;
}
export interface DeviceStatus {
  readonly vmbusVersion: string | undefined;
  readonly channels: readonly ChannelStatus[];
  readonly heartbeat: { readonly health: string; readonly replies: number } | undefined;
  readonly timeSync: { readonly messages: number } | undefined;
  readonly disks: readonly {
    readonly lun: number;
    readonly file: string;
    readonly counters: Readonly<Record<string, number>>;
  }[];
  /** Undefined where there is no network service. */
  readonly network: NetworkDeviceStatus | undefined;
  readonly sockets: number;
  readonly shares: readonly ShareSpec[];
  /** Calls of all shares' file systems. */
  readonly shareCalls: number;
  /** ms that the device side's thread has worked since it started; undefined where it has none of its own. */
  readonly busyMs: number | undefined;
}
