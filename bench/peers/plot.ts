/** The comparison as a picture: slowdown against native by group, one bar a machine, on a logarithmic scale. SVG by hand. */
import type { Report } from "./report.js";
import { shownRatio } from "./table.js";

/** Same machine, same colour, whichever others are there. */
const COLOURS: Readonly<Record<string, string>> = {
  enlighten: "#0b7285",
  "enlighten-warm": "#66b2bf",
  qemu: "#e8590c",
  "qemu-max": "#f2a65a",
  "qemu-single": "#c9a227",
  v86: "#7048e8",
};
const GROUP_TITLES: Readonly<Record<string, string>> = {
  all: "all workloads",
  int: "integer",
  sha: "SHA-256",
  mem: "memory",
  fp: "floating point",
  vm: "interpreter",
  lz: "compression",
  sys: "system calls",
};
const WIDTH = 860;
const LEFT = 140;
const RIGHT = 60;
const LINE = 16;
const BAR = 11;
const BAR_STEP = 14;
const GROUP_GAP = 14;

const INK = "#24292f";
const FAINT = "#57606a";
const GRID = "#d8dee4";

export const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

/** 1, 2, 5, 10, ... up to the first that is not below `max`; at least to 10. */
export function ticks(max: number): number[] {
  const all: number[] = [];
  for (let power = 1; ; power *= 10)
    for (const digit of [1, 2, 5]) {
      all.push(power * digit);
      if (power * digit >= Math.max(max, 10)) return all;
    }
}

interface TextStyle {
  readonly size?: number;
  readonly fill?: string;
  readonly anchor?: "start" | "middle" | "end";
  readonly bold?: boolean;
}
function text(x: number, y: number, content: string, style: TextStyle = {}): string {
  const { size = 12, fill = INK, anchor = "start", bold = false } = style;
  const weight = bold ? ' font-weight="bold"' : "";
  const at = `x="${x.toFixed(1)}" y="${y.toFixed(1)}"`;
  return `<text ${at} font-size="${size}" fill="${fill}" text-anchor="${anchor}"${weight}>${escaped(content)}</text>`;
}

export function plot(report: Report): string {
  const machines = report.machines.filter(({ geomeans }) => geomeans.all !== undefined);
  const groups = ["all", ...new Set(machines.flatMap(({ workloads }) => workloads.map(({ group }) => group)))];
  const ratios = machines.flatMap(({ geomeans }) => groups.flatMap((group) => geomeans[group] ?? []));
  const marks = ticks(Math.max(1, ...ratios));
  const perDecade = (WIDTH - LEFT - RIGHT) / Math.log10(marks.at(-1)!);
  // what is faster than native has no bar
  const x = (ratio: number): number => LEFT + Math.max(0, Math.log10(ratio)) * perDecade;

  const top = 66 + machines.length * LINE;
  const groupHeight = machines.length * BAR_STEP + GROUP_GAP;
  const bottom = top + groups.length * groupHeight;
  const height = bottom + 62;
  const parts = [
    text(20, 30, "Slowdown against native (CPU time, lower is better)", { size: 17, bold: true }),
    ...machines.flatMap(({ name, title, bits }, i) => {
      const y = 48 + i * LINE;
      const against = bits === 32 ? ", against native of 32 bits" : "";
      return [
        `<rect x="20" y="${y}" width="11" height="11" rx="2" fill="${COLOURS[name] ?? FAINT}"/>`,
        text(38, y + 10, `${title}${against}`),
      ];
    }),
    ...marks.flatMap((mark) => [
      `<line x1="${x(mark).toFixed(1)}" x2="${x(mark).toFixed(1)}" y1="${top}" y2="${bottom}" stroke="${GRID}"/>`,
      text(x(mark), bottom + 16, mark === 1 ? "native" : `${mark}x`, { size: 11, fill: FAINT, anchor: "middle" }),
    ]),
    ...groups.flatMap((group, i) => {
      const y = top + i * groupHeight + GROUP_GAP / 2;
      const middle = y + (machines.length * BAR_STEP - (BAR_STEP - BAR)) / 2 + 4;
      const title = GROUP_TITLES[group] ?? group;
      return [
        text(LEFT - 12, middle, title, { anchor: "end", bold: group === "all" }),
        ...machines.flatMap(({ name, geomeans }, j) => {
          const ratio = geomeans[group];
          if (ratio === undefined) return [];
          const at = y + j * BAR_STEP;
          const width = (x(ratio) - LEFT).toFixed(1);
          return [
            `<rect x="${LEFT}" y="${at}" width="${width}" height="${BAR}" fill="${COLOURS[name] ?? FAINT}"/>`,
            text(x(ratio) + 5, at + 9.5, shownRatio(ratio), { size: 11, fill: FAINT }),
          ];
        }),
      ];
    }),
    text(20, height - 16, facts(report), { size: 10.5, fill: FAINT }),
  ];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}"`,
    `  font-family="system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif" role="img">`,
    `<title>Slowdown against native by group of workloads</title>`,
    // its own ground, so that a dark page does not matter
    `<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8" fill="#fcfcfa" stroke="${GRID}"/>`,
    ...parts,
    "</svg>",
    "",
  ].join("\n");
}

function facts({ host, rounds, divide }: Report): string {
  const iterations = divide === 1 ? "" : ` · iterations divided by ${divide}`;
  const how = `guestbench, geometric means, median of ${rounds} ${rounds === 1 ? "round" : "rounds"}${iterations}`;
  return `${how} · ${host.processor} · ${host.kernel} · Node ${host.node}`;
}
