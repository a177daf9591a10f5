/** What the console's status says of the network. */
import type { NetworkDeviceStatus } from "../vm/index.js";

/** Connections that are listed. */
const SHOWN_FLOWS = 12;
const SHOWN_REFUSALS = 6;

function bytes(n: number): string {
  if (n < 10_000) return `${n} B`;
  return n < 10e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(0)} MB`;
}
/** "1 filtered, 2 tooLong"; nothing where there is none. */
function reasons(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, n]) => n > 0)
    .map(([reason, n]) => `${n} ${reason}`)
    .join(", ");
}

export function networkLines(s: NetworkDeviceStatus): string[] {
  const lost = reasons(s.drops);
  const lines = [
    [
      `network ${s.mac}`,
      s.protocol === "none" ? "no driver" : `NVSP ${s.protocol}`,
      s.link ? "link up" : "not plugged in",
      `sent ${s.sentFrames} frames, ${bytes(s.sentBytes)}`,
      `received ${s.receivedFrames}, ${bytes(s.receivedBytes)}`,
      ...(lost === "" ? [] : [`lost ${lost}`]),
    ].join(" · "),
  ];
  const { nat } = s;
  if (nat === undefined) return lines;
  for (const { address, mac, hostName } of nat.leases)
    lines.push(`  ${address} leased to ${mac}${hostName === "" ? "" : ` (${hostName})`}`);
  for (const { host, guest, protocol, connections } of nat.published)
    lines.push(`  ${host} leads to ${guest} (${protocol}, ${connections} so far)`);
  const { tcpOpened, tcpFailed, udpOpened, dnsQueries, refused } = nat.counters;
  const given = reasons(nat.dropped);
  lines.push(
    [
      `  router: ${tcpOpened} TCP connections, ${tcpFailed} failed`,
      `${udpOpened} UDP flows`,
      `${dnsQueries} names asked for`,
      ...(refused === 0 ? [] : [`${refused} refused by the allow list`]),
      ...(given === "" ? [] : [`packets given up: ${given}`]),
    ].join(" · "),
  );
  if (nat.refused.length > 0)
    lines.push(
      `  refused: ${nat.refused
        .slice(-SHOWN_REFUSALS)
        .map((r) => `${r.protocol} ${r.to}`)
        .join(", ")}`,
    );
  for (const f of nat.flows.slice(0, SHOWN_FLOWS))
    lines.push(
      `  ${f.protocol} ${f.guest} ${f.direction === "out" ? "→" : "←"} ${f.remote} ${f.state}, out ${bytes(f.bytesToHost)}, in ${bytes(f.bytesToGuest)}`,
    );
  if (nat.flows.length > SHOWN_FLOWS) lines.push(`  … ${nat.flows.length - SHOWN_FLOWS} more`);
  return lines;
}
