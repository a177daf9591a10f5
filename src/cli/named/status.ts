/** `enlighten status NAME`: everything that a machine tells of itself, once or again and again. */
import type { Status } from "../../control/catalogue.js";
import type { NetworkDeviceStatus } from "../../vm/device-messages.js";
import { networkLines } from "../network-status.js";
import { shareLines } from "../share-status.js";
import { connect, openRegistry } from "./find.js";
import { amount, duration, megabytes, percent, table } from "./table.js";

const PATIENCE_MS = 10_000;

export async function status(
  name: string,
  o: { readonly json?: boolean; readonly watch?: boolean; readonly interval: number },
): Promise<number> {
  const client = await connect(openRegistry(), name, "asking for its status");
  const controller = new AbortController();
  const stop = (): void => controller.abort();
  if (o.watch === true) process.once("SIGINT", stop);
  const screen = o.watch === true && o.json !== true && process.stdout.isTTY === true;
  try {
    let before: { readonly status: Status; readonly at: number } | undefined;
    for (;;) {
      const at = performance.now();
      const now = await client.ask("status", {}, { timeoutMs: PATIENCE_MS, signal: controller.signal });
      if (o.json === true) process.stdout.write(`${JSON.stringify({ name, ...now })}\n`);
      else {
        const seconds = before === undefined ? undefined : (at - before.at) / 1000;
        const text = describe(name, now, before?.status, seconds);
        process.stdout.write(screen ? `\x1b[H\x1b[2J${text}` : before === undefined ? text : `\n${text}`);
      }
      if (o.watch !== true) return 0;
      before = { status: now, at };
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, o.interval * 1000);
        controller.signal.addEventListener("abort", () => {
          clearTimeout(timer);
          resolve();
        });
      });
      if (controller.signal.aborted) return 0;
    }
  } catch (error) {
    if (controller.signal.aborted) return 0;
    throw error;
  } finally {
    process.off("SIGINT", stop);
    client.close();
  }
}

/** @param seconds since `before`: what came between is given by the second */
export function describe(name: string, s: Status, before: Status | undefined, seconds: number | undefined): string {
  const { summary } = s;
  const guestLoad = summary.guestLoad === undefined ? "" : ` · guest's processor ${percent(summary.guestLoad)} busy`;
  const mips =
    before === undefined || seconds === undefined || seconds <= 0
      ? ""
      : ` · ${((s.instructions - before.instructions) / seconds / 1e6).toFixed(0)} MIPS`;
  const lines = [
    `${name}  ${summary.guest}  ${summary.state}, up ${duration(summary.upMs)}${s.reboots === 0 ? "" : `, ${s.reboots} reboots`}`,
    `processor  ${percent(summary.load)} of a core${guestLoad} · ${(s.instructions / 1e6).toFixed(0)} M instructions${mips}`,
    `memory     guest ${summary.memoryMiB} MiB · process ${megabytes(summary.rssBytes)} resident`,
  ];
  if (s.channels.length > 0) {
    const heartbeat = s.heartbeat === undefined ? "" : ` · heartbeat ${s.heartbeat}`;
    lines.push(`VMBus      ${s.vmbusVersion ?? "not connected"}${heartbeat}`, "");
    lines.push(deviceTable(s, before, seconds).trimEnd());
  }
  for (const { lun, file, counters } of s.disks) {
    const counts = Object.entries(counters)
      .filter(([, n]) => n > 0)
      .map(([what, n]) => `${what} ${n}`);
    lines.push("", `disk ${lun} ${file}${counts.length === 0 ? "" : `: ${counts.join(", ")}`}`);
  }
  if (s.network !== null && s.network !== undefined) lines.push("", ...networkLines(s.network as NetworkDeviceStatus));
  if (s.shares !== undefined && s.shares.length > 0) lines.push("", ...shareLines(s.shares));
  if (s.commands.length > 0) {
    const rows = s.commands.map((c) => [
      c.id,
      c.pid === undefined ? "-" : String(c.pid),
      c.exitCode === undefined ? `${duration(c.sinceMs)}` : `ended ${c.exitCode}`,
      c.detached ? "yes" : "no",
      c.command.replaceAll(/\s+/g, " ").slice(0, 60),
    ]);
    lines.push("", table(["EXEC", "PID", "SINCE", "DETACHED", "COMMAND"], rows).trimEnd());
  }
  for (const problem of s.problems) lines.push("", `problem: ${problem}`);
  return `${lines.join("\n")}\n`;
}

function deviceTable(s: Status, before: Status | undefined, seconds: number | undefined): string {
  const earlier = new Map(before?.channels.map((c) => [`${c.relid} ${c.subIndex}`, c]));
  const rate = (now: number, then: number | undefined): string =>
    then === undefined || seconds === undefined || seconds <= 0
      ? String(now)
      : `${now} (${((now - then) / seconds).toFixed(0)}/s)`;
  const rows = s.channels.map((c) => {
    const then = earlier.get(`${c.relid} ${c.subIndex}`);
    return [
      c.subIndex === 0 ? c.name : `${c.name} #${c.subIndex}`,
      c.version ?? "-",
      c.state,
      c.ringBytes === 0 ? "-" : `${amount(c.inBytes)} / ${amount(c.outBytes)} of ${amount(c.ringBytes)}`,
      rate(c.packetsIn, then?.packetsIn),
      rate(c.packetsOut, then?.packetsOut),
      c.problem ?? "",
    ];
  });
  return table(["DEVICE", "VERSION", "STATE", "RINGS FROM / TO GUEST", "FROM", "TO", "LAST ERROR"], rows);
}
