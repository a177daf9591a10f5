/** A machine's console for one who looks at it: the last screenful, then what comes; keys the other way. Others may look too. */
import { type Answer, type Request, Stream, VERBS } from "./catalogue.js";
import type { Exchange } from "./connection.js";
import type { ControlledMachine } from "./server.js";

/** One who does not look is told what was left out: the guest waits for nobody's window. */
const BEHIND_BYTES = 1 << 20;

export async function watchConsole(
  machine: ControlledMachine,
  exchange: Exchange,
  { lines, input }: Request<"console">,
): Promise<Answer<"console">> {
  let behind = 0;
  let leftOut = 0;
  let last: Promise<void> = Promise.resolve();
  const send = (bytes: Uint8Array): void => {
    behind += bytes.length;
    last = exchange.write(Stream.output, bytes).then(() => {
      behind -= bytes.length;
      if (behind > 0 || leftOut === 0) return;
      const note = `\r\n[enlighten: ${leftOut} bytes left out]\r\n`;
      leftOut = 0;
      send(new TextEncoder().encode(note));
    });
  };
  const show = (bytes: Uint8Array): void => {
    if (behind > BEHIND_BYTES) leftOut += bytes.length;
    else send(bytes);
  };
  const screen = withoutQueries(lastLines(machine.consoleText, lines));
  if (screen !== "") show(new TextEncoder().encode(screen));
  const off = machine.onOutput(0, show);
  const isRunning = (): boolean => machine.state === "running";
  if (input)
    exchange.read(Stream.input, (bytes) => {
      if (isRunning()) machine.write(bytes);
    });
  exchange.onNote = (note) => {
    if (VERBS.console.toServer(note, "").powerButton === true && isRunning()) machine.pressPowerButton();
  };
  try {
    const end = await new Promise<{ readonly how: string }>((resolve) => {
      exchange.onClose(() => resolve({ how: "detached" }));
      void machine.waitForEnd().then(resolve);
    });
    await last;
    return { how: end.how };
  } finally {
    off();
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
const QUERIES = /\x1b\[[0-9;?>=]*[cn]|\x1b\[\?[0-9;]*\$p|\x05/g;
/** Without what a terminal would answer: what is shown again was answered long ago. */
export function withoutQueries(text: string): string {
  return text.replace(QUERIES, "");
}

/** The end of a text, from the beginning of a line. */
export function lastLines(text: string, lines: number): string {
  if (lines === 0) return "";
  let at = text.length;
  for (let n = 0; n < lines; n++) {
    const before = text.lastIndexOf("\n", at - 1);
    if (at === 0 || before < 0) return text;
    at = before;
  }
  return text.slice(at + 1);
}
