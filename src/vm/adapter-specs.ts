/** The network adapters of a machine, as its options and the state that it goes on from say. */
import type { DeviceSideState, NetworkSpec, ServiceName } from "./device-messages.js";
import { MAX_ADAPTERS } from "./machine-adapters.js";
import { VmError } from "./vm-error.js";
import { type NetworkOptions, networkSpec } from "./vm-network.js";
import type { VmOptions } from "./vm-options.js";

export interface AdapterSpecs {
  /** Adapter 0; undefined: there is none. */
  readonly first: NetworkSpec | undefined;
  /** Those beside it, from number 1. */
  readonly others: readonly NetworkSpec[];
  /** One more. @throws VmError "bad-option" */
  another(o: NetworkOptions, number: number): NetworkSpec;
}

const savedMac = (devices: DeviceSideState | undefined, n: number): string | undefined =>
  n === 0 ? devices?.mac : devices?.macs?.[n];

/**
 * @param random 32 bits by chance
 * @throws VmError "bad-option"
 */
export function adapterSpecs(options: VmOptions, services: readonly ServiceName[], random: () => number): AdapterSpecs {
  const specOf = (o: NetworkOptions | undefined, number: number): NetworkSpec | undefined =>
    networkSpec(o, {
      hasService: services.includes("network"),
      deterministic: options.deterministic !== undefined,
      number,
      savedMac: savedMac(options.saved?.devices, number),
      firstDisk: [...(options.guest.disks ?? []), ...(options.disks ?? [])].find((d) => !d.readOnly)?.file,
      random,
    });
  const first = specOf(options.network, 0);
  const another = (o: NetworkOptions, number: number): NetworkSpec => {
    const spec = first === undefined || o.mode === "none" ? undefined : specOf(o, number);
    if (spec !== undefined && number < MAX_ADAPTERS) return spec;
    throw new VmError(
      "bad-option",
      "adapters are beside the network's own, seven at most",
      'offer the network service, and leave mode: "none" out',
    );
  };
  return { first, others: (options.adapters ?? []).map((o, i) => another(o, i + 1)), another };
}
