/** The message catalogue between the API's thread and the device side (foundations: "message catalogue"), the same in Node and in a page. */

import type { PublishedPort, PublishSpec } from "../net/publish.js";
import type { FlowInfo, Refusal } from "../net/statistics.js";
import type { Impairments } from "../net/switch.js";
import type { Health } from "../services/integration/heartbeat.js";
import type { ShutdownOutcome, ShutdownRequest } from "../services/integration/shutdown.js";
import type { TraceRecord } from "../trace/trace.js";
import type { TimeBase } from "./messages.js";

/** What is offered to the guest. Names are those of `--services`. */
export const SERVICE_NAMES = ["storage", "network", "heartbeat", "shutdown", "timesync", "sockets"] as const;
/** The synthetic devices. */
export type ServiceName = (typeof SERVICE_NAMES)[number];

/** A disk on the synthetic SCSI controller. */
export interface DiskSpec {
  /** Host path. */
  readonly file: string;
  /** The guest may not write. */
  readonly readOnly: boolean;
  /** Make it, of this size, when it is not there. */
  readonly createBytes?: number;
  /** A DVD is an ISO image. */
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
  /** Channels of the adapter beside its first; 0 unless given. */
  readonly maxSubChannels?: number;
}

/** A folder of the host that the guest mounts. */
export interface ShareSpec {
  /** Host path, absolute. */
  readonly directory: string;
  /** The server refuses every change. */
  readonly readOnly: boolean;
  /** In the guest. */
  readonly mountPoint: string;
  /** Of what the guest looks at. */
  readonly cacheSeconds: number;
  /** The guest is told what changes. */
  readonly isWatched: boolean;
}

export interface DeviceSpec {
  readonly services: readonly ServiceName[];
  readonly disks: readonly DiskSpec[];
  /** Of the service "network": adapter 0, and those beside it. */
  readonly network?: NetworkSpec;
  readonly adapters?: readonly NetworkSpec[];
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
  /** The network adapter's address, and all by number. */
  readonly mac?: string;
  readonly macs?: Readonly<Record<number, string>>;
  /** By name of the offer. */
  readonly devices: Readonly<Record<string, unknown>>;
  readonly deadlines: unknown;
}

/** What the main thread tells the device side. */
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
  /** The cable, to a network that is shared, goes with the message. */
  | {
      readonly type: "add-adapter";
      readonly id: number;
      readonly number: number;
      readonly spec: NetworkSpec;
      readonly cable: unknown;
    }
  | { readonly type: "remove-adapter"; readonly id: number; readonly number: number }
  /** The adapter's end of its cable, in or out. */
  | { readonly type: "link"; readonly id: number; readonly number: number; readonly up: boolean }
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
  /** A share, by its place: paths in it that are not as the guest was shown them, folders before what is in them. */
  | { readonly type: "share-changed"; readonly share: number; readonly paths: readonly Uint8Array[] }
  /** The guest goes through a folder file by file; with `from`, through all that is below it, and is at that folder in it. */
  | { readonly type: "share-scanned"; readonly share: number; readonly path: Uint8Array; readonly from?: Uint8Array }
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
  /** 0 is the one that every machine has. */
  readonly number: number;
  /** "00:15:5d:…". */
  readonly mac: string;
  /** NVSP version that the guest's driver agreed on; "none" while there is no driver. */
  readonly protocol: string;
  /** The driver takes frames. */
  readonly isReady: boolean;
  /** The cable is plugged in. */
  readonly link: boolean;
  /** Bytes of an IP packet, at most. */
  readonly mtu: number;
  /** That are open, the primary one included. */
  readonly channels: number;
  /** Of the guest's receive buffer. */
  readonly receiveSections: number;
  /** Of these, those that the guest does not hold. */
  readonly freeReceiveSections: number;
  /** By the guest, as the adapter counts them. */
  readonly sentFrames: number;
  /** By the guest, headers included. */
  readonly sentBytes: number;
  /** By the guest. */
  readonly receivedFrames: number;
  /** By the guest, headers included. */
  readonly receivedBytes: number;
  /** Frames that were lost, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  /** Undefined where the adapter is not plugged in, or the network is shared: that has its own status. */
  readonly nat: NatStatus | undefined;
}
/** An address that a guest has by DHCP. */
export interface LeaseStatus {
  /** The address. */
  readonly address: string;
  /** Of the guest's adapter. */
  readonly mac: string;
  /** As the guest calls itself; may be empty. */
  readonly hostName: string;
}
/** A router. */
export interface NatStatus {
  /** By what is counted, since the router was made. */
  readonly counters: Readonly<Record<string, number>>;
  /** Packets given up, by reason. */
  readonly dropped: Readonly<Record<string, number>>;
  /** Connections and datagram flows that live. */
  readonly flows: readonly FlowInfo[];
  /** Addresses that guests have by DHCP. */
  readonly leases: readonly LeaseStatus[];
  /** Ports of this host that lead to guests'. */
  readonly published: readonly PublishedPort[];
  /** The last that the allow list refused, each once. */
  readonly refused: readonly Refusal[];
}
/** A network that machines share. */
export interface SharedNetworkStatus {
  /** That are plugged in. */
  readonly machines: number;
  /** What the switch has done with frames. */
  readonly frames: Readonly<Record<string, number>>;
  /** Its router. */
  readonly nat: NatStatus;
}

/** One VMBus channel. */
export interface ChannelStatus {
  /** The channel's number on the bus. */
  readonly relid: number;
  /** 0: the primary channel. */
  readonly subIndex: number;
  /** Of the service. */
  readonly name: string;
  /** "offered", "open" and others, for people. */
  readonly state: string;
  /** What driver and device agreed on, "3.2"; undefined before, and where there is nothing to agree on. */
  readonly version: string | undefined;
  /** Bytes that wait in the ring from the guest. */
  readonly inBytes: number;
  /** To the guest. */
  readonly outBytes: number;
  /** Size of the ring to the guest. */
  readonly ringBytes: number;
  /** From the guest, so far. */
  readonly packetsIn: number;
  /** To the guest, so far. */
  readonly packetsOut: number;
  /** What the guest did wrong last. */
  readonly problem: string | undefined;
}
/** What the guest's heartbeat says. */
export interface HeartbeatStatus {
  /** "no-contact" until it has answered once. */
  readonly health: Health;
  /** Answers so far. */
  readonly replies: number;
}
/** Of the time synchronisation. */
export interface TimeSyncStatus {
  /** Sent so far. */
  readonly messages: number;
}
/** A disk at work. */
export interface DiskStatus {
  /** Its number on the controller. */
  readonly lun: number;
  /** Host path. */
  readonly file: string;
  /** Requests and bytes by kind. */
  readonly counters: Readonly<Record<string, number>>;
}
/** The state of all synthetic devices. */
export interface DeviceStatus {
  /** What the guest negotiated, "5.3"; undefined before. */
  readonly vmbusVersion: string | undefined;
  /** Of the devices that are offered, open or not. */
  readonly channels: readonly ChannelStatus[];
  /** Undefined where the service is not offered. */
  readonly heartbeat: HeartbeatStatus | undefined;
  /** Undefined where the service is not offered. */
  readonly timeSync: TimeSyncStatus | undefined;
  /** On the SCSI controller, with counters of requests and bytes by kind. */
  readonly disks: readonly DiskStatus[];
  /** Undefined where there is no network service. */
  readonly network: NetworkDeviceStatus | undefined;
  /** All of them, by number. */
  readonly adapters: readonly NetworkDeviceStatus[];
  /** Hyper-V sockets that are open. */
  readonly sockets: number;
  /** Folders of the host that the guest sees. */
  readonly shares: readonly ShareSpec[];
  /** Calls of all shares' file systems. */
  readonly shareCalls: number;
  /** ms that the device side's thread has worked since it started; undefined where it has none of its own. */
  readonly busyMs: number | undefined;
}
