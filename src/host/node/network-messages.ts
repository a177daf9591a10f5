/** What passes between the API of a shared network (virtual-network.ts) and its thread (network-worker.ts). */
import type { MessagePort } from "node:worker_threads";
import type { PublishedPort, PublishSpec } from "../../net/publish.js";
import type { PlainError, SharedNetworkStatus } from "../../vm/device-messages.js";

export type ToNetwork =
  | { readonly type: "plug"; readonly port: MessagePort }
  | { readonly type: "publish"; readonly id: number; readonly spec: PublishSpec }
  | { readonly type: "unpublish"; readonly id: number; readonly port: number }
  | { readonly type: "allow"; readonly id: number; readonly list: readonly string[] | undefined }
  | { readonly type: "status"; readonly id: number }
  | { readonly type: "close" };
export interface NetworkAnswer {
  readonly id: number;
  readonly port?: PublishedPort;
  readonly done?: boolean;
  readonly status?: SharedNetworkStatus;
  readonly error?: PlainError;
}
/** The id of the first answer: the network is there, or its configuration cannot be. */
export const STARTED = 0;
