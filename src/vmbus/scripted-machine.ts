/** A guest, a host and devices, connected for a test. */
import { TraceKind, TraceRing } from "../trace/trace.js";
import { ScriptedDevice } from "./scripted-device.js";
import { type GuestOptions, ScriptedGuest } from "./scripted-guest.js";

/** A guest and a host with some devices. */
export function machine(devices = 1, options: GuestOptions = {}) {
  const trace = new TraceRing(() => 0, 4000);
  const guest = new ScriptedGuest({ trace, ...options });
  const all = Array.from({ length: devices }, (_, i) => new ScriptedDevice(i + 1));
  const offers = all.map((d) => guest.server.offer(d));
  const violations = (): string[] =>
    trace
      .take()
      .filter((r) => r.kind === TraceKind.violation)
      .map((r) => new TextDecoder().decode(r.bytes));
  return { guest, trace, violations, devices: all, device: all[0]!, offers, offer: offers[0]!, server: guest.server };
}
/** Of each channel, its relid and state. */
export const states = (guest: ScriptedGuest): string[] => guest.server.channels().map((c) => `${c.relid} ${c.state}`);
export const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);
/** Whether the channel answers. */
export function works(guest: ScriptedGuest, channel: ReturnType<ScriptedGuest["open"]>): boolean {
  channel.send(bytes(7, 8, 9), { transaction: [1, 2], completion: true });
  guest.turn();
  const packets = channel.receiveAll();
  return packets.length === 1 && packets[0]?.payload[2] === 9 && packets[0]?.transactionHigh === 2;
}
