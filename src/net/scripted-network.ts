/** For tests: a router, perhaps behind a switch that loses frames, with guests, in virtual time. */
import type { NatConfig } from "./config.js";
import { Nat } from "./nat.js";
import { EthernetPort } from "./port.js";
import { ScriptedGuest } from "./scripted-guest.js";
import { World } from "./scripted-outside.js";
import type { Refusal } from "./statistics.js";
import { type Impairments, Switch } from "./switch.js";

/** Repeatable chance (xorshift32). */
export function seeded(seed: number): () => number {
  let x = Math.imul(seed + 1, 0x9e37_79b1) | 1;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

/** Everything of a scripted network. */
export interface ScriptedNetwork {
  readonly world: World;
  readonly nat: Nat;
  readonly guest: ScriptedGuest;
  readonly guests: ScriptedGuest[];
  readonly refusals: Refusal[];
  readonly theSwitch: Switch | undefined;
}

/** One guest on a cable to the router; with impairments, or more guests, behind a switch. */
export function scriptedNetwork(
  config: NatConfig = {},
  options: { impairments?: Impairments; guests?: number; seed?: number } = {},
): ScriptedNetwork {
  const world = new World();
  const random32 = seeded(options.seed ?? 1);
  const clock = { now: () => world.time };
  const refusals: Refusal[] = [];
  const count = options.guests ?? 1;
  const [routerEnd, otherEnd] = EthernetPort.cable();
  const guestEnds: EthernetPort[] = [];
  let theSwitch: Switch | undefined;
  if (count > 1 || options.impairments !== undefined) {
    theSwitch = new Switch({ clock, random32, ...(options.impairments && { impairments: options.impairments }) });
    theSwitch.attach(otherEnd);
    for (let i = 0; i < count; i++) {
      const [a, b] = EthernetPort.cable();
      theSwitch.attach(a);
      guestEnds.push(b);
    }
    world.timed.push(theSwitch);
  } else guestEnds.push(otherEnd);
  const nat = new Nat({
    port: routerEnd,
    clock,
    backend: world.outside,
    random32,
    config,
    onRefused: (r) => refusals.push(r),
  });
  world.timed.push(nat);
  const guests = guestEnds.map(
    (end, i) => new ScriptedGuest(end, () => world.time, random32, `10.0.2.${15 + i}`, i + 1),
  );
  world.actors.push(...guests);
  world.timed.push(...guests);
  return { world, nat, guest: guests[0]!, guests, refusals, theSwitch };
}

/** A hash of bytes in pieces, 64 bits of it, and their number. */
export function digest(pieces: Iterable<Uint8Array>): string {
  let a = 0x811c_9dc5;
  let b = 0x1234_5678;
  let length = 0;
  for (const piece of pieces) {
    length += piece.length;
    for (let i = 0; i < piece.length; i++) {
      a = Math.imul(a ^ piece[i]!, 0x0100_0193);
      b = Math.imul(b + piece[i]!, 0x9e37_79b1) ^ (b >>> 15);
    }
  }
  return `${length} ${(a >>> 0).toString(16)} ${(b >>> 0).toString(16)}`;
}

/** Bytes that do not repeat soon. */
export function noise(length: number, seed: number): Uint8Array {
  const next = seeded(seed);
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) out[i] = next() >>> 8;
  return out;
}
